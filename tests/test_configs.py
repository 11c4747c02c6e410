"""The shipped configurations: readable, overridable, and the presets what docs/presets.md says of them."""

import importlib

import pytest
from ml_collections import ConfigDict

from hallujax.errors import UsageError
from hallujax.evaluation import published
from hallujax.experiment import IMAGENET, read_config
from hallujax.training.start import build_method

NAMES = (
    "streams",
    "baselines",
    "two_stream",
    "hallucination",
    "hallucination_ablations",
    "hallucination_layers",
    "connections",
    "controls",
    "conditions",
    "few_clips",
    "equal_budget",
    "weak_teachers",
    "sensitivity",
    "imagenet",
    "compression",
    "admd",
    "admd_no_bottleneck",
    "admd_ablations",
    "admd_steadied",
    "adversarial",
    "side_information",
    "moddrop",
    "distillation",
    "joints",
    "generation",
    "graph",
    "balanced",
    "flow",
    "unlabelled",
    "label_noise",
    "table",
    "systems",
    "demo",
)


def _model(stage, network):
    return {**stage.model, **stage.models.get(network, {})}


def config(name, arguments="mocap_rgbd,cross_subject"):
    return importlib.import_module(f"configs.{name}").get_config(arguments)


@pytest.mark.parametrize("preset", ["", "paper", "authors_code"])
@pytest.mark.parametrize("name", NAMES)
def test_every_configuration_reads_and_builds(name, preset):
    experiment = read_config(config(name, f"mocap_rgbd,cross_view,{preset}"))
    assert experiment.data.protocol == "cross_view"
    for stage in experiment.order():
        method = build_method(stage, 15)
        assert set(stage.init_from) <= set(method.networks)
        for network, (source, its_network) in stage.init_from.items():
            if source == IMAGENET:
                continue
            assert its_network in build_method(experiment.stages[source], 15).networks
            same = _model(experiment.stages[source], its_network) == _model(stage, network)
            assert same, f"{stage.name}'s {network} cannot start from {source}: another model"
    for system in experiment.systems:
        if system.published[0]:
            published.value(*system.published, "ntu_cross_subject", system.test_modalities or None)


def test_the_table_has_the_rows_it_is_asked_for_in_order():
    names = [system.name for system in read_config(config("table")).systems]
    assert names == [
        "Depth",
        "RGB",
        "RGB ensemble",
        "RGB from depth (control)",
        "RGB + control",
        "Two-stream, not fine-tuned",
        "Two-stream (step 2)",
        "Hallucination (step 3)",
        "Hallucination + RGB (step 4)",
        "ADMD hallucination",
        "ADMD two-stream",
    ]


def test_every_system_is_the_table_and_more():
    """Its stages are the table's to the last setting, so that a table's workdir can be gone on with."""
    table, systems = read_config(config("table")), read_config(config("systems"))
    assert systems.systems[: len(table.systems)] == table.systems
    assert all(systems.identity(name) == table.identity(name) for name in table.stages)
    published_rows = {system.name: system.published for system in systems.systems[len(table.systems) :]}
    assert published_rows["Side information (Hoffman)"] == ("eccv18-3", "Hoffman et al. [11]")
    both, rgb = (system for system in systems.systems if system.stages == ("moddrop",))
    assert published.value(*both.published, "nyud", both.test_modalities) == 58.93
    assert published.value(*rgb.published, "nyud", rgb.test_modalities) == 53.73


def test_loss_ablations_keep_the_ratios_of_step_3():
    experiment = read_config(config("hallucination_ablations"))
    full = build_method(experiment.stages["hallucination"], 15).weights
    names = [name for name in experiment.stages if name.startswith("hallucination_")]
    assert len(names) == 6
    for name in names:
        weights = build_method(experiment.stages[name], 15).weights
        kept = [term for term in full if term in name]
        assert {term for term, weight in weights.items() if weight > 0} == set(kept)
        ratios = [weights[term] / full[term] for term in kept]
        assert ratios == pytest.approx([ratios[0]] * len(kept))


def test_defaults_reach_every_stage_and_a_stage_may_differ():
    settings = config("table")
    settings.training.epochs = 7.0
    settings.stages.admd.optimizer.learning_rate = 3e-4
    experiment = read_config(settings)
    epochs = {name: stage.epochs for name, stage in experiment.stages.items()}
    assert epochs.pop("two_stream") == epochs.pop("step4") == pytest.approx(0.3 * 7.0)  # fine-tuning only
    assert set(epochs.values()) == {7.0}
    assert experiment.stages["admd"].optimizer.learning_rate == 3e-4
    assert experiment.stages["rgb"].optimizer.learning_rate == 2e-3


def test_a_role_that_no_comparison_knows_is_refused():
    settings = config("streams")
    settings.systems.RGB.role = "rbg"
    with pytest.raises(UsageError, match=r"systems\.RGB\.role is 'rbg'; known: rgb, ensemble"):
        read_config(settings)


@pytest.mark.parametrize(
    "key, value",
    [("plateau.patience", -1), ("plateau.factor", 0.0), ("optimizer.warmup", 1.5), ("optimizer.clip", -1.0)],
)
def test_numbers_that_make_no_sense_are_refused(key, value):
    settings = config("streams")
    settings.training.update_from_flattened_dict({key: value})
    with pytest.raises(UsageError, match=key.split(".")[1]):
        read_config(settings)


def test_few_clips_take_the_steps_of_all_whatever_their_share():
    settings = config("few_clips")
    settings.data.labelled, settings.training.epochs = 0.1, 6.0
    epochs = {name: stage.epochs for name, stage in read_config(settings).stages.items()}
    assert (epochs.pop("depth"), epochs.pop("rgb")) == pytest.approx((60, 60))
    assert len(epochs) == 5 and list(epochs.values()) == pytest.approx([138.0] * 5)
    assert read_config(config("controls")).stages["control_long"].epochs == pytest.approx(2.3 * 15)


def test_presets_differ_where_the_sources_do():
    paper, code = (read_config(config("table", f"mocap_rgbd,cross_subject,{p}")) for p in ("paper", "authors_code"))
    assert paper.stages["rgb"].optimizer.name == "sgd" and paper.stages["rgb"].plateau.patience > 0
    assert paper.stages["admd"].optimizer.name == "adam" and paper.stages["admd"].model["bottleneck"] == 128
    assert paper.stages["two_stream"].epochs == paper.stages["rgb"].epochs
    assert paper.stages["rgb"].model["bottleneck"] == 0 and paper.stages["rgb"].model["temporal_kernel"] == 5
    assert not paper.stages["hallucination"].options["soften_student"]
    assert code.stages["rgb"].optimizer.learning_rate == 1e-3 and code.stages["rgb"].batch_size == 5
    assert code.stages["hallucination"].options == {
        "imitation": 0.5,
        "alpha": 0.5,
        "layer": "block4",
        "temperature": 10.0,
        "soften_student": True,
        "temperature_squared": False,
        "scale": 0.05,  # 0.01 of a sum over 5 clips
    }
    assert code.stages["rgb"].model["layout"] == "slim" and code.stages["rgb"].model["temporal_kernel"] == 3
    assert code.stages["admd"].options["discriminator_weight"] == 0.5
    kept = [read_config(config("moddrop", f"mocap_rgbd,cross_subject,{p}")).stages["moddrop"] for p in ("", "paper")]
    assert [stage.options["keep_values"] for stage in kept] == [1.0, 0.8]
    assert code.stages["two_stream"].options["connect"] and paper.stages["two_stream"].options["connect"]


def test_stages_on_few_labels_take_as_many_steps_as_on_all_clips():
    settings = config("unlabelled")
    settings.data.labelled = 0.1
    experiment = read_config(settings)
    assert {name: stage.unlabelled for name, stage in experiment.stages.items()} == {
        "depth": False,
        "rgb": False,
        "distilled_labelled": False,
        "distilled_all": True,
    }
    steps = [stage.steps(1800 if stage.unlabelled else 180) for stage in experiment.stages.values()]
    assert len(set(steps)) == 1


def test_keys_that_came_later_leave_old_identities_as_they_were():
    """What a workdir of before them says of its stages is still what the same configuration says."""
    experiment = read_config(config("table"))
    identity = experiment.identity("rgb")
    assert not {"labelled", "label_noise"} & set(identity["data"])
    assert not {"models", "unlabelled"} & set(identity["stages"]["rgb"])
    settings = config("table")
    settings.data.label_noise = 0.2
    settings.stages.rgb.unlabelled = True
    changed = read_config(settings).identity("rgb")
    assert changed["data"]["label_noise"] == 0.2 and changed["stages"]["rgb"]["unlabelled"] is True


def test_a_stage_has_its_own_seed_and_identity():
    experiment = read_config(config("table"))
    assert experiment.stage_seed("rgb") != experiment.stage_seed("rgb2")
    assert list(experiment.identity("admd")["stages"]) == ["admd", "depth"]


def test_unknown_and_missing_keys_are_named():
    settings = config("streams")
    settings.stages.rgb.unlock()
    settings.stages.rgb.epoch = 3
    with pytest.raises(UsageError, match=r"stages\.rgb\.epoch"):
        read_config(settings)
    settings = config("streams")
    del settings.data.frames
    with pytest.raises(UsageError, match=r"lacks data\.frames"):
        read_config(settings)
    settings = config("streams")
    settings.stages = ConfigDict()
    with pytest.raises(UsageError, match="no stages"):
        read_config(settings)
    settings = config("streams")
    settings.systems["RGB"].stages = ("rbg",)
    with pytest.raises(UsageError, match=r"needs the stages \['rbg'\]"):
        read_config(settings)


def test_one_network_of_a_stage_can_be_another_model():
    experiment = read_config(config("compression"))
    method = build_method(experiment.stages["small_compressed"], 15)
    assert {name: method.networks[name].width for name in method.modalities} == {
        "hallucination": 16,
        "rgb": 16,
        "student": 8,
    }


@pytest.mark.parametrize(
    "models, message", [({"teacher": {"width": 8}}, "teacher"), ({"student": {"wide": 8}}, "wide")]
)
def test_a_model_of_no_network_or_with_an_unknown_argument_is_refused(models, message):
    described = config("compression")
    described.stages.small_compressed.models = ConfigDict(models)
    with pytest.raises(UsageError, match=message):
        build_method(read_config(described).stages["small_compressed"], 15)


def test_a_stage_without_other_models_is_what_it_was_before_there_were_any():
    assert "models" not in read_config(config("table")).identity("depth")["stages"]["depth"]
    assert "models" in read_config(config("compression")).identity("small_rgb")["stages"]["small_rgb"]
