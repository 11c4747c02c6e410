// The page: a clip goes to /api/predict or comes from /api/clips, and what is said of it is shown.
import { drawCloud, drawSweep } from "/charts.js";

const $ = (id) => document.getElementById(id);
const SHOWN = 5; // classes before the rest is asked for
const RECORD_SECONDS = 4;
let model, cloud, turn = 0; // an answer that comes after the next question was asked is dropped
const state = { prediction: null, clip: null, sweep: null, recorder: null, allClasses: false };

function element(name, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

const percent = (share) => (share > 0 && share < 0.0005 ? "<0.1 %" : `${(100 * share).toFixed(1)} %`);
const likeliest = (shares) => shares.reduce((best, share, i) => (share > shares[best] ? i : best), 0);

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server did not answer. Is it still running?");
  }
  const answer = await response.json().catch(() => ({ error: `the server answered with status ${response.status}` }));
  if (!response.ok) throw new Error(answer.error);
  return answer;
}

// Runs one question; its errors are shown, and those of an earlier one are dropped. Where the question was a new clip,
// nothing of the old one is left beside an error.
async function during(text, work, newClip = true) {
  const mine = ++turn;
  $("error").hidden = true;
  $("status").textContent = text;
  $("result").setAttribute("aria-busy", "true");
  try {
    await work(() => mine === turn);
  } catch (error) {
    if (mine === turn) {
      complain(error.message);
      for (const id of newClip ? ["result", "depth-card"] : []) $(id).hidden = true;
    }
  } finally {
    if (mine === turn) {
      $("status").textContent = "";
      $("result").removeAttribute("aria-busy");
    }
  }
}

function complain(message) {
  $("error").textContent = message.charAt(0).toUpperCase() + message.slice(1);
  $("error").hidden = false;
}

function upload(file) {
  const most = model.limits.upload_bytes;
  if (file.size > most) {
    complain(`This file has ${(file.size / 2 ** 20).toFixed(0)} MiB; the server takes ${(most / 2 ** 20).toFixed(0)}.`);
    return;
  }
  const body = new FormData();
  body.append("video", file);
  during("Sending, decoding, predicting …", async (current) => {
    const prediction = await ask("/api/predict?frames=true&maps=true", { method: "POST", body });
    if (!current()) return;
    Object.assign(state, { prediction, clip: null, sweep: null });
    showPrediction();
    $("depth-card").hidden = true;
  });
}

// Prediction

function showPrediction() {
  const { prediction, clip } = state;
  $("result").hidden = false;
  $("label").textContent = `${prediction.label}, ${percent(prediction.probability)}`;
  $("truth").hidden = !clip;
  if (clip) {
    const right = clip.label === prediction.label ? "right" : "wrong";
    $("truth").textContent = `${clip.name}: the clip is of the class ${clip.label}, so this is ${right}.`;
  }
  const views = [["frames", "as the networks see them"]];
  for (const stream of Object.keys(prediction.maps ?? {})) views.push([stream, `where ${stream} looks`]);
  const legend = element("legend", { textContent: "Frames" });
  $("view").replaceChildren(legend, ...views.map(([value, text], i) => {
    const input = element("input", { type: "radio", name: "view", value, checked: i === 0 });
    input.addEventListener("change", () => showFrames(value));
    return element("label", {}, input, ` ${text}`);
  }));
  showFrames("frames");
  showBars();
  const { timing, clip: about } = prediction;
  const ms = (seconds) => `${(1000 * seconds).toFixed(0)} ms`;
  const length = about.seconds === undefined || about.seconds === null ? "" : ` in ${about.seconds.toFixed(1)} s`;
  const source = clip ? "read" : "decoded";
  $("timing").textContent =
    `${about.length} frames${length}; ${clip ? "" : `sent in ${ms(timing.upload)}, `}${source} in ${ms(timing.decode)}, ` +
    `waited ${ms(timing.wait)}, network ${ms(timing.network)}, ${ms(timing.total)} in all.`;
  $("label").focus({ preventScroll: true });
}

function showFrames(view) {
  const { prediction } = state;
  const pictures = view === "frames" ? prediction.frames : prediction.maps[view];
  const clock = prediction.clip.seconds !== undefined && prediction.clip.seconds !== null;
  $("frames").replaceChildren(...pictures.map((src, i) => {
    const time = prediction.clip.times[i];
    const text = clock ? `${time.toFixed(2)} s` : `frame ${time}`;
    return element("figure", {}, element("img", { src, alt: `${view}, ${text}` }), element("figcaption", { textContent: text }));
  }));
  $("view-note").textContent =
    view === "frames" ? "" : `Yellow: what speaks for ${prediction.label} in the stream ${view} (Grad-CAM on its last maps, which are coarse).`;
  if (!model.has_maps) $("view-note").textContent = "This export has no class-activation maps and no streams of its own: its weights are inside a program.";
}

function showBars() {
  const { prediction, allClasses } = state;
  const streams = Object.keys(prediction.scores);
  $("legend").replaceChildren(...streams.map((name, i) =>
    element("span", {}, element("span", { className: `swatch k${i % 4}` }), name === "fused" ? "all together" : name)));
  const fused = prediction.scores.fused;
  const order = fused.map((_, i) => i).sort((a, b) => fused[b] - fused[a]);
  const shown = allClasses ? order : order.slice(0, SHOWN);
  $("bars").replaceChildren(...shown.flatMap((k, rank) => [
    element("div", { className: rank ? "name" : "name first", textContent: model.classes[k] }),
    element("div", {}, ...streams.map((name, i) => {
      const share = prediction.scores[name][k];
      const fill = element("div", { className: `k${i % 4}` });
      fill.style.width = `${100 * share}%`;
      const track = element("div", { className: "track", role: "img", ariaLabel: `${name} ${percent(share)}` }, fill);
      return element("div", { className: "bar" }, track, element("span", { className: "number", textContent: percent(share) }));
    })),
  ]));
  $("all-classes").hidden = order.length <= SHOWN;
  $("all-classes").textContent = allClasses ? "Fewer classes" : `All ${order.length} classes`;
  $("all-classes").setAttribute("aria-expanded", allClasses);
}

// Benchmark clips

function showClip(name) {
  during("Reading the clip …", async (current) => {
    const clip = await ask(`/api/clips/${encodeURIComponent(name)}`);
    if (!current()) return;
    Object.assign(state, { clip, prediction: clip.prediction, sweep: null });
    showPrediction();
    $("depth-card").hidden = false;
    $("clean-only").hidden = model.failing;
    $("failing").hidden = !model.failing;
    $("clean-depth").src = clip.depth;
    $("depth-title").textContent = model.failing ? "When depth fails" : "Depth";
    if (model.failing) await fetchSweep(current);
  });
}

async function fetchSweep(current) {
  cloud ??= await ask("/api/features");
  const kind = encodeURIComponent($("noise").value);
  const sweep = await ask(`/api/clips/${encodeURIComponent(state.clip.name)}/noise?kind=${kind}`);
  if (!current()) return;
  state.sweep = sweep;
  $("level").max = sweep.levels.length - 1;
  $("level").value = 0;
  showLevel();
}

function showLevel() {
  const { sweep, clip } = state;
  const i = Number($("level").value), switched = sweep.switched[i];
  const level = `${+sweep.levels[i].toFixed(2)} (${sweep.severity})`;
  $("level-text").textContent = level;
  $("level").setAttribute("aria-valuetext", level);
  $("strip").src = sweep.depth[i];
  $("strip").alt = `depth frames, noise at ${level}`;
  $("doubt-text").textContent =
    `The discriminator takes these depth features for hallucinated: ${percent(sweep.doubt[i])}; ` +
    `above ${percent(sweep.threshold)} depth is given up.`;
  $("doubt-bar").style.width = `${100 * sweep.doubt[i]}%`;
  $("threshold").style.left = `${100 * sweep.threshold}%`;
  for (const [id, used] of [["trusted", !switched], ["fallback", switched]]) {
    const shares = sweep[id].probabilities[i], best = likeliest(shares), card = $(id);
    card.classList.toggle("used", used);
    const what = id === "trusted" ? "RGB with depth" : "RGB with hallucinated depth";
    card.querySelector("h3").textContent = `${used ? "✓ Used: " : "Not used: "}${what} (${sweep[id].name})`;
    const right = model.classes[best] === clip.label ? "right" : `wrong, it is ${clip.label}`;
    card.querySelector("p").textContent = `${model.classes[best]}, ${percent(shares[best])}: ${right}`;
  }
  $("verdict").textContent = switched ? "Depth is not trusted: its hallucination is used." : "Depth is trusted.";
  $("sweep-caption").textContent = `Probability of the right class, ${clip.label}, as the noise grows`;
  drawSweep($("sweep"), sweep, model.classes.indexOf(clip.label), i);
  $("cloud-caption").textContent =
    `Features from depth and hallucinated ones, validation clips, those of ${clip.label} darker ` +
    `(two axes, ${percent(cloud.explained)} of the variance)`;
  drawCloud($("cloud"), cloud, clip.features, clip.label, { path: sweep.features, level: i });
  $("calibration").textContent =
    `Threshold from ${sweep.calibrated_on} clean validation clips, of which at most ${percent(sweep.false_alarms)} lie above it. No noise was trained on.`;
}

async function listClips() {
  const { dataset, clips, noises } = await ask("/api/clips");
  $("dataset").textContent = dataset;
  const options = (values) => values.map(([value, text]) => element("option", { value, textContent: text }));
  const classes = [...new Set(clips.map((clip) => clip.label))].sort();
  $("pick-class").replaceChildren(...options(classes.map((name) => [name, name])));
  const refill = () => {
    const chosen = clips.filter((clip) => clip.label === $("pick-class").value);
    $("pick-clip").replaceChildren(...options(chosen.map(({ name }) => [name, name])));
  };
  $("pick-class").addEventListener("change", refill);
  refill();
  $("noise").replaceChildren(...options(Object.entries(noises)));
  $("noise").addEventListener("change", () => during("Adding noise …", fetchSweep, false));
  $("level").addEventListener("input", () => state.sweep && showLevel());
  $("pick").addEventListener("submit", (event) => {
    event.preventDefault();
    showClip($("pick-clip").value);
  });
  $("pick").hidden = false;
}

// Webcam

async function record() {
  if (state.recorder) {
    state.recorder.stop();
    return;
  }
  if (!navigator.mediaDevices || !window.MediaRecorder) {
    complain("This browser gives the webcam to https pages and to localhost alone.");
    return;
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 } }, audio: false });
  } catch (error) {
    complain(`No picture from the webcam (${error.name}).`);
    return;
  }
  $("error").hidden = true;
  const parts = [], recorder = new MediaRecorder(stream), preview = $("preview");
  state.recorder = recorder;
  preview.srcObject = stream;
  preview.hidden = false;
  preview.play().catch(() => {});
  recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
  recorder.addEventListener("stop", () => {
    clearInterval(clock);
    for (const track of stream.getTracks()) track.stop();
    preview.hidden = true;
    preview.srcObject = null;
    state.recorder = null;
    $("record").textContent = "Record from the webcam";
    upload(new File(parts, "webcam", { type: recorder.mimeType }));
  });
  let left = RECORD_SECONDS;
  const count = () => ($("record").textContent = `Stop (${left} s left)`);
  const clock = setInterval(() => (--left > 0 ? count() : recorder.state === "recording" && recorder.stop()), 1000);
  count();
  recorder.start();
}

function listen() {
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    if ($("file").files.length) upload($("file").files[0]);
    $("file").value = ""; // the same file may be chosen again
  });
  $("record").addEventListener("click", record);
  $("all-classes").addEventListener("click", () => {
    state.allClasses = !state.allClasses;
    showBars();
  });
  const drop = $("drop");
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault(); // a file dropped beside the box does not replace the page
      drop.classList.toggle("over", name === "dragover" && drop.contains(event.target));
    });
  }
  drop.addEventListener("drop", (event) => {
    if (event.dataTransfer.files.length) upload(event.dataTransfer.files[0]);
  });
}

async function start() {
  model = await ask("/api/model");
  const accuracy = model.facts.test_accuracy;
  const said = typeof accuracy === "number" ? ` ${percent(accuracy > 1 ? accuracy / 100 : accuracy)} right on test clips of ${model.facts.dataset}.` : "";
  $("about").textContent = `${model.system}: ${model.classes.length} classes, ${model.frames} frames a clip, RGB alone.${said}`;
  const { upload_bytes, clip_seconds } = model.limits;
  $("limits").textContent = `Up to ${(upload_bytes / 2 ** 20).toFixed(0)} MiB and ${clip_seconds} seconds.`;
  $("missing").replaceChildren(...model.missing.map((line) => element("li", { textContent: `Not shown: ${line}` })));
  $("missing").hidden = !model.missing.length;
  listen();
  if (model.benchmark) await listClips();
}

start().catch((error) => complain(error.message));
