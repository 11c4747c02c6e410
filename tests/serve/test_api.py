"""Uploads over a real server get the answers that the predictor gives, alone and all at once."""

import concurrent.futures
import json

import jax
import numpy as np
import pytest
from running import serving
from videos import encode, noise

from hallujax.data.records import PreparedDataset
from hallujax.deploy.export import write_export
from hallujax.deploy.run import read_run
from hallujax.evaluation.evaluate import Predictions

STEP4 = "Hallucination + RGB (step 4)"


def same(answer, prediction):
    for name, scores in prediction.scores.items():
        np.testing.assert_allclose(answer["scores"][name], scores.probabilities, atol=1e-6)
    assert answer["label"] == prediction.label


def test_an_upload_gets_what_the_predictor_says(server, predictor):
    frames = noise(0)
    status, answer = server.predict(encode(frames))
    assert status == 200, answer
    same(answer, predictor(frames))
    assert answer["system"] == STEP4 and list(answer["scores"]) == ["fused", "hallucination", "rgb"]
    assert answer["top"] == [{"label": label, "probability": pytest.approx(p)} for label, p in predictor(frames).top(5)]
    assert answer["clip"] == {"seconds": pytest.approx(0.28), "length": 7, "times": pytest.approx([0, 0.12, 0.24])}
    assert set(answer["timing"]) == {"upload", "decode", "wait", "network", "total"}
    assert "frames" not in answer and "maps" not in answer
    _, answer = server.predict(encode(frames), "?frames=true&maps=true")
    assert len(answer["frames"]) == 3 and set(answer["maps"]) == {"hallucination", "rgb"}
    assert all(uri.startswith("data:image/jpeg;base64,") for uri in (*answer["frames"], *answer["maps"]["rgb"]))


def test_no_answer_goes_to_another_request(server, predictor):
    clips = [noise(seed, count=3 + seed % 4, height=32 + 8 * (seed % 3)) for seed in range(32)]
    expected = list(predictor.predict_many(clips))
    said = np.stack([prediction.logits for prediction in expected])
    apart = np.abs(said[:, None] - said).max(-1) + np.eye(len(said))
    assert apart.min() > 1e-4, "these clips could not tell a mix-up"
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(server.predict, map(encode, clips)))
    for (status, answer), prediction in zip(answers, expected, strict=True):
        assert status == 200, answer
        same(answer, prediction)


def test_a_benchmark_clip_gets_what_evaluation_said(server, trained, tiny):
    listed = server.get("/api/clips")
    evaluated = Predictions.load(trained / "step4" / "predictions_test.npz")
    assert [clip["name"] for clip in listed["clips"]] == [clip.decode() for clip in evaluated.clip]
    classes = server.get("/api/model")["classes"]
    for i in (0, 5):
        answer = server.get(f"/api/clips/{listed['clips'][i]['name']}")
        expected = np.asarray(jax.nn.softmax(evaluated.logits[i]))
        np.testing.assert_allclose(answer["prediction"]["scores"]["fused"], expected, atol=1e-5)
        assert answer["label"] == classes[evaluated.label[i]] == listed["clips"][i]["label"]
        assert answer["depth"].startswith("data:image/jpeg") and set(answer["features"]) == {"real", "hallucinated"}
        length = PreparedDataset.open(tiny).length("rgb")[0]
        assert answer["prediction"]["clip"]["length"] == length
    for name in ("nobody", "..%2F..%2Fetc%2Fpasswd", "%00"):
        status, _, body = server.request("GET", f"/api/clips/{name}")
        assert status == 404 and set(json.loads(body)) == {"error", "kind"}


def test_a_sweep_over_the_api(server):
    name = server.get("/api/clips")["clips"][0]["name"]
    sweep = server.get(f"/api/clips/{name}/noise?kind=dropout")
    count = len(sweep["levels"])
    assert sweep["levels"][0] == 0 and sweep["levels"] == sorted(sweep["levels"])
    for each in (sweep["depth"], sweep["doubt"], sweep["features"], sweep["trusted"]["probabilities"]):
        assert len(each) == count
    assert sweep["switched"] == [doubt > sweep["threshold"] for doubt in sweep["doubt"]]
    for i, switched in enumerate(sweep["switched"]):
        used = sweep["fallback" if switched else "trusted"]["probabilities"][i]
        assert sweep["chosen"]["probabilities"][i] == pytest.approx(used, abs=1e-5)
    status, _, body = server.request("GET", f"/api/clips/{name}/noise?kind=none")
    assert status == 422 and "multiplicative" in json.loads(body)["error"]
    assert len(server.get("/api/features")["real"]) == sweep["calibrated_on"]


def test_about_health_metrics_and_openapi(server):
    about = server.get("/api/model")
    assert about["benchmark"] and about["failing"] and about["missing"] == [] and about["has_maps"]
    assert about["limits"]["upload_bytes"] == 2 * 2**20 and about["facts"]["dataset"] == "mocap_rgbd"
    assert server.get("/healthz") == {"status": "ok"} and server.get("/readyz") == {"status": "ready"}
    server.predict(b"no video")
    _, headers, body = server.request("GET", "/metrics")
    text = body.decode()
    assert headers["content-type"].startswith("text/plain")
    assert 'hallujax_requests_total{route="/api/predict",status="415"}' in text
    assert 'hallujax_errors_total{kind="unsupported"}' in text
    for name in ("request_seconds_bucket", "stage_seconds_bucket", "batch_clips_bucket", "requests_under_way 0.0"):
        assert f"hallujax_{name}" in text
    described = server.get("/api/openapi.json")
    assert {"/api/predict", "/api/model", "/api/clips", "/healthz"} <= set(described["paths"])
    body = described["paths"]["/api/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert body["schema"]["properties"]["video"]["format"] == "binary"


@pytest.mark.parametrize("kind", ["safetensors", "stablehlo"])
def test_an_export_says_what_it_cannot_show(trained, tmp_path, predictor, kind):
    write_export(read_run(trained, STEP4), kind, tmp_path / "export")
    with serving("--model", tmp_path / "export", "--max-batch", "2") as server:
        about = server.get("/api/model")
        assert not about["benchmark"] and about["has_maps"] == (kind == "safetensors")
        assert any("--data" in line for line in about["missing"])
        assert any("inside a program" in line for line in about["missing"]) == (kind == "stablehlo")
        frames = noise(1)
        status, answer = server.predict(encode(frames), "?maps=true")
        assert status == 200, answer
        np.testing.assert_allclose(answer["scores"]["fused"], predictor(frames).probabilities, atol=1e-5)
        assert set(answer["maps"]) == ({"hallucination", "rgb"} if kind == "safetensors" else set())
        assert server.request("GET", "/api/clips")[0] == 404
        assert server.stop() in (0, -15), server.log
        assert "Traceback" not in server.log
