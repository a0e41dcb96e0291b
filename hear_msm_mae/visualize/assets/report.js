/* The selected clip, the list, and the rest of the page. */

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
  ["Sound", `What the model hears: mono at ${report.sampleRate / 1000} kHz, here as MP3.`],
  [
    "Spectrogram",
    `Log-mel power over time, 50 to ${report.sampleRate / 2} Hz; each clip has its own range of ` +
      "colours.",
  ],
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
    $("failed").append(element("li", {}, element("strong", {}, name), ` ${reason}`));
  }
  for (const [term, text] of NOTES) $("notes").append(element("dt", {}, term), element("dd", {}, text));

  const linked = Number(location.hash.slice(1));
  select(clips[linked] ? linked : 0, false);
}

start();
