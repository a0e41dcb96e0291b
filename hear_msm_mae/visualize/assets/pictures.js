/* Elements, the marks of folders, and pictures of a clip. page.py joins the scripts to one. */
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
