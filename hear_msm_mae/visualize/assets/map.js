/* The map of the clips. */
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
