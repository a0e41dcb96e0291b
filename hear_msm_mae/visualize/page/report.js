
"use strict";

const report = JSON.parse(document.getElementById("data").textContent);
const clips = report.clips;
const $ = (id) => document.getElementById(id);
const player = $("player");

// -----------------------------------------------------------------------------------------------
// Elements
// -----------------------------------------------------------------------------------------------
function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function drawing(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
const full = (clip) => `${clip.folder}/${clip.name}`;
const length = (seconds) => (seconds < 10 ? seconds.toFixed(1) : seconds.toFixed(0)) + " s";

// -----------------------------------------------------------------------------------------------
// Folders: six colours (Paul Tol's bright scheme) in four shapes
// -----------------------------------------------------------------------------------------------
const COLOURS = ["#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377"];
const SHAPES = [
  (r) => `M0-${r}A${r} ${r} 0 1 1 0 ${r}A${r} ${r} 0 1 1 0-${r}Z`,
  (r) => `M-${r * 0.88}-${r * 0.88}h${r * 1.76}v${r * 1.76}h-${r * 1.76}Z`,
  (r) => `M0-${r * 1.2}L${r * 1.1} ${r * 0.8}H-${r * 1.1}Z`,
  (r) => `M0-${r * 1.3}L${r * 1.1} 0L0 ${r * 1.3}L-${r * 1.1} 0Z`,
];
const folders = [...new Set(clips.map((clip) => clip.folder))].sort();

function mark(folder, radius) {
  const index = folders.indexOf(folder);
  const shape = SHAPES[Math.floor(index / COLOURS.length) % SHAPES.length];
  return drawing("path", { d: shape(radius), fill: COLOURS[index % COLOURS.length], class: "mark" });
}

function icon(folder) {
  const view = { viewBox: "-8 -8 16 16", class: "mark-icon", "aria-hidden": "true" };
  return drawing("svg", view, mark(folder, 6));
}

// -----------------------------------------------------------------------------------------------
// Pictures of a clip
// -----------------------------------------------------------------------------------------------
const pictures = {};

function makePicture(id, timed) {
  const picture = element("div", { class: "picture" });
  const frame = element("div", { class: "frame", role: "img" });
  const head = element("span", { class: "playhead" });
  for (const [label, at] of report.ticks) {
    const tick = element("span", { class: "tick", "aria-hidden": "true" }, label);
    tick.style.bottom = `${100 * at}%`;
    picture.append(tick);
  }
  picture.append(frame);
  $(id).append(picture);
  if (timed) $(id).append(element("div", { class: "times", "aria-hidden": "true" }));
  frame.addEventListener("click", (event) => {
    const box = frame.getBoundingClientRect();
    player.currentTime = ((event.clientX - box.left) / box.width) * clips[selected].seconds;
    player.play().catch(() => {});
  });
  pictures[id] = { frame, head, times: $(id).querySelector(".times") };
}

function showPicture(id, uri, label, clip, overlay) {
  const { frame, head, times } = pictures[id];
  const image = element("img", { src: uri, alt: "" });
  frame.setAttribute("aria-label", `${label} of ${clip.name}`);
  frame.replaceChildren(image, ...(overlay ? [overlay] : []), head);
  if (!times) return;
  const seconds = clip.frames * report.frameSeconds;
  const step = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60].find((s) => seconds / s <= 8) ?? 300;
  times.replaceChildren();
  for (let t = 0; t <= seconds * 0.96; t = Math.round((t + step) * 100) / 100) {
    const tick = element("span", {}, t === 0 ? "0 s" : `${t}`);
    tick.style.left = `${(100 * t) / seconds}%`;
    times.append(tick);
  }
}

/* One rectangle per patch; opacity(index) 0 leaves it out. Row 0 is the lowest frequency. */
function patches(clip, className, count, opacity) {
  const columns = count / report.rows;
  const overlay = drawing("svg", {
    viewBox: `0 0 ${columns} ${report.rows}`,
    preserveAspectRatio: "none",
    class: className,
    "shape-rendering": "crispEdges",
    "aria-hidden": "true",
  });
  overlay.style.width = `${(100 * columns * report.patchFrames) / clip.frames}%`;
  for (let index = 0; index < count; index++) {
    const strength = opacity(index);
    if (!strength) continue;
    const y = report.rows - 1 - Math.floor(index / columns);
    const place = { x: index % columns, y, width: 1, height: 1 };
    overlay.append(drawing("rect", { ...place, "fill-opacity": strength }));
  }
  return overlay;
}

let ratio = Math.max(0, report.ratios.indexOf(0.75));

function showReconstruction(clip) {
  if (!report.ratios.length) return;
  const hidden = clip.hidden[ratio];
  const cover = patches(clip, "patches", hidden.length, (i) => Number(hidden[i]));
  const percent = `${Math.round(100 * report.ratios[ratio])} % hidden`;
  showPicture("masked", clip.picture, `Masked input, ${percent},`, clip, cover);
  showPicture("output", clip.outputs[ratio], `Reconstruction, ${percent},`, clip);
}

function showAttention(clip) {
  const values = clip.attention;
  const heat = patches(clip, "heat", values.length, (i) => Math.round(values[i] * 0.9) / 100);
  showPicture("attention", clip.picture, "Attention map", clip, heat);
}

// -----------------------------------------------------------------------------------------------
// The selected clip
// -----------------------------------------------------------------------------------------------
let selected = -1;

function select(index, play = true) {
  const changed = index !== selected;
  selected = index;
  const clip = clips[index];
  if (changed) {
    player.src = clip.sound;
    player.setAttribute("aria-label", `Player of ${clip.name}`);
    $("clip-name").textContent = clip.name;
    $("clip-about").replaceChildren(`${clip.folder} · ${length(clip.seconds)}`);
    showPicture("input", clip.picture, "Spectrogram", clip);
    showReconstruction(clip);
    showAttention(clip);
    showNeighbours(clip);
    showSelection();
    $("said").textContent = `${clip.name}, ${clip.folder}`;
    history.replaceState(null, "", `#${index}`);
  }
  if (play) {
    player.currentTime = 0;
    player.play().catch(() => {}); // refused before the first click of the reader
  }
}

function row(index, note) {
  const clip = clips[index];
  const name = element("span", { class: "name", title: full(clip) }, clip.name);
  const button = element("button", { type: "button", class: "row" }, icon(clip.folder), name);
  button.append(element("span", { class: "quiet" }, note));
  button.addEventListener("click", () => select(index));
  return button;
}

function showNeighbours(clip) {
  $("near-title").hidden = !clip.near.length;
  const rows = clip.near.map(([index, similarity]) => row(index, similarity.toFixed(2)));
  $("near").replaceChildren(...rows.map((button) => element("li", {}, button)));
}

function moveHeads() {
  const share = player.duration ? player.currentTime / player.duration : 0;
  for (const { head } of Object.values(pictures)) head.style.left = `${100 * share}%`;
  if (!player.paused) requestAnimationFrame(moveHeads);
}

// -----------------------------------------------------------------------------------------------
// Map
// -----------------------------------------------------------------------------------------------
const WIDTH = 900;
const HEIGHT = 600;
const MARGIN = 34;
const REACH = 26; // pixels on the screen around the pointer in which a point is found
const map = $("map");
const places = clips.map(({ at }) => [
  MARGIN + at[0] * (WIDTH - 2 * MARGIN),
  HEIGHT - MARGIN - at[1] * (HEIGHT - 2 * MARGIN),
]);
const links = drawing("g");
const ring = drawing("circle", { class: "ring", r: 15 });
const radius = clips.length > 400 ? 5 : clips.length > 120 ? 7 : 9;
const marks = clips.map((clip, index) => {
  const point = mark(clip.folder, radius);
  point.setAttribute("transform", `translate(${places[index]})`);
  return point;
});

function showSelection() {
  const [x, y] = places[selected];
  const similar = clips[selected].near.filter(([, similarity]) => similarity > 0);
  const lines = similar.map(([index]) => {
    const [x2, y2] = places[index];
    return drawing("line", { x1: x, y1: y, x2, y2, class: "link" });
  });
  links.replaceChildren(...lines);
  ring.setAttribute("cx", x);
  ring.setAttribute("cy", y);
  rows.forEach((button, index) => button.setAttribute("aria-current", index === selected));
  const { name, folder } = clips[selected];
  const chosen = `Selected: ${name}, ${folder}.`;
  map.setAttribute("aria-label", `Map of ${plural(clips.length, "clip")}. ${chosen}`);
}

function pointAt(event) {
  const box = map.getBoundingClientRect();
  const scale = WIDTH / box.width;
  const x = (event.clientX - box.left) * scale;
  const y = (event.clientY - box.top) * scale;
  let best = -1;
  let least = REACH * scale;
  places.forEach(([px, py], index) => {
    const distance = Math.hypot(px - x, py - y);
    if (shown(index) && distance < least) [best, least] = [index, distance];
  });
  return best;
}

function showTip(event) {
  const index = pointAt(event);
  const tip = $("tip");
  tip.hidden = index < 0;
  if (index < 0) return;
  tip.textContent = full(clips[index]);
  tip.style.left = `${(100 * places[index][0]) / WIDTH}%`;
  tip.style.top = `${(100 * places[index][1]) / HEIGHT}%`;
}

const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function mapKey(event) {
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    if (player.paused) select(selected);
    else player.pause();
  }
  const arrow = ARROWS[event.key];
  if (!arrow) return;
  event.preventDefault();
  const [x, y] = places[selected];
  let best = -1;
  let least = Infinity;
  places.forEach(([px, py], index) => {
    const ahead = (px - x) * arrow[0] + (py - y) * arrow[1];
    const aside = Math.abs((px - x) * arrow[1]) + Math.abs((py - y) * arrow[0]);
    const cost = ahead + 2 * aside;
    if (index !== selected && shown(index) && ahead > 0 && cost < least) [best, least] = [index, cost];
  });
  if (best >= 0) select(best, false);
}

// -----------------------------------------------------------------------------------------------
// Choosing among the clips
// -----------------------------------------------------------------------------------------------
let folder = null;
let wanted = "";
const shown = (index) =>
  (folder === null || clips[index].folder === folder) &&
  full(clips[index]).toLowerCase().includes(wanted);

const rows = clips.map((clip, index) => row(index, `${clip.folder} · ${length(clip.seconds)}`));
const items = rows.map((button) => element("li", {}, button));

function filter() {
  let count = 0;
  clips.forEach((_, index) => {
    const yes = shown(index);
    items[index].hidden = !yes;
    marks[index].classList.toggle("dim", !yes);
    count += yes;
  });
  $("none").hidden = count > 0;
  for (const button of $("folders").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", button.dataset.folder === folder);
  }
}

function folderChip(name) {
  const count = clips.filter((clip) => clip.folder === name).length;
  const number = element("span", { class: "quiet" }, count);
  const button = element("button", { type: "button", "aria-pressed": "false" }, icon(name), name);
  button.append(number);
  button.dataset.folder = name;
  button.addEventListener("click", () => {
    folder = folder === name ? null : name;
    filter();
  });
  return element("li", {}, button);
}

// -----------------------------------------------------------------------------------------------
// The rest of the page
// -----------------------------------------------------------------------------------------------
function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  $("theme").textContent = dark ? "Light" : "Dark";
  $("theme").setAttribute("aria-label", dark ? "Light colours" : "Dark colours");
}

function summary() {
  const parts = [plural(clips.length, "clip"), plural(folders.length, "folder")];
  if (report.found > report.chosen) parts[0] += ` of ${report.found}, chosen evenly`;
  parts.push(`first ${report.seconds} s of each`, `model ${report.model}`);
  return parts.join(" · ");
}

const NOTES = [
  ["Sound", "What the model hears: mono at 16 kHz, here as MP3."],
  ["Spectrogram", "Log-mel power over time, 50 to 8000 Hz; each clip has its own range of colours."],
  [
    "What the encoder sees, reconstruction",
    "Patches are hidden at random and predicted from the others; the others are shown as they " +
      "are." +
      (report.normPixels
        ? " This model predicts the shape of each patch; its level and contrast are taken from " +
          "the original."
        : ""),
  ],
  [
    "Attention",
    "How much attention each patch gets in the last block from all patches of its unit, mean of " +
      "the heads.",
  ],
  [
    "Map",
    `${report.layout} of the scene embeddings without their mean. Near means similar; far apart ` +
      "says little about how different two clips are.",
  ],
  ["Nearest neighbours", "By cosine similarity of the scene embeddings without their mean."],
];

function start() {
  $("summary").textContent = summary();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  setTheme(dark.matches);
  dark.addEventListener("change", (event) => setTheme(event.matches));
  $("theme").addEventListener("click", () => {
    setTheme(document.documentElement.dataset.theme !== "dark");
  });

  $("reconstruction").hidden = !report.ratios.length;
  for (const id of ["input", "masked", "output", "attention"]) {
    makePicture(id, id === "input" || id === "attention");
  }
  report.ratios.forEach((value, index) => {
    const choice = { type: "radio", name: "ratio", value: index };
    const input = element("input", index === ratio ? { ...choice, checked: "" } : choice);
    input.addEventListener("change", () => {
      ratio = index;
      showReconstruction(clips[selected]);
      moveHeads();
    });
    const text = `${Math.round(1000 * value) / 10} %`;
    $("ratios").append(element("label", {}, input, element("span", {}, text)));
  });

  map.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  map.append(links, ...marks, ring);
  map.addEventListener("pointermove", showTip);
  map.addEventListener("pointerleave", () => ($("tip").hidden = true));
  map.addEventListener("click", (event) => {
    const index = pointAt(event);
    if (index >= 0) select(index);
  });
  map.addEventListener("keydown", mapKey);

  $("folders").hidden = folders.length < 2;
  $("folders").append(...folders.map(folderChip));
  $("clips").append(...items);
  $("search").addEventListener("input", (event) => {
    wanted = event.target.value.trim().toLowerCase();
    filter();
  });
  player.addEventListener("play", moveHeads);
  player.addEventListener("seeked", moveHeads);
  player.addEventListener("loadedmetadata", moveHeads);

  $("failed-card").hidden = !report.failed.length;
  for (const [name, reason] of report.failed) {
    const text = reason.startsWith(name) ? reason.slice(name.length).replace(/^:\s*/, "") : reason;
    $("failed").append(element("li", {}, element("strong", {}, name), ` ${text}`));
  }
  for (const [term, text] of NOTES) $("notes").append(element("dt", {}, term), element("dd", {}, text));

  const linked = Number(location.hash.slice(1));
  select(clips[linked] ? linked : 0, false);
}

start();
