// widget.js: draws what _widget.py computed. `chosen` is the position whose distribution is shown; its logits are in
// `state`, and the slider redraws from them alone: softmax(logits / T).

/** [log Σ exp(x), entropy in nats] of x = logits / T, with the largest taken out first. */
export function statistics(logits, temperature) {
  let max = -Infinity;
  for (const x of logits) if (x > max) max = x;
  let sum = 0;
  let weighted = 0;
  for (const logit of logits) {
    const x = (logit - max) / temperature;
    const e = Math.exp(x);
    sum += e;
    if (e > 0) weighted += x * e;
  }
  const log_sum = Math.log(sum);
  return { max, log_sum, entropy: log_sum - weighted / sum };
}

/** The probability of a logit, given the statistics of all. */
export function probability(logit, temperature, { max, log_sum }) {
  return Math.exp((logit - max) / temperature - log_sum);
}

/** Slider steps are even in log T, from 0.01 to 3. */
export const temperature_of = (step) => 0.01 * 300 ** (step / 100);
export const step_of = (temperature) => (100 * Math.log(temperature / 0.01)) / Math.log(300);

function element(tag, class_name, text = "") {
  const made = document.createElement(tag);
  made.className = class_name;
  made.textContent = text;
  return made;
}

/** A state's logits arrive as a DataView, which need not start at a multiple of four. */
function floats(view) {
  return new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
}

function draw_bars(box, state, logits, temperature) {
  const found = statistics(logits, temperature);
  const rows = state.top.map((entry) => ({ ...entry, came: state.next?.id === entry.id }));
  if (state.next && !rows.some((row) => row.came)) rows.push({ ...state.next, came: true });
  box.replaceChildren(
    ...rows.map((row) => {
      const p = probability(row.logit, temperature, found);
      const line = element("div", row.came ? "bar came" : "bar");
      const fill = element("span", "fill");
      fill.style.width = `${(100 * p).toFixed(2)}%`;
      const track = element("span", "track");
      track.append(fill);
      line.append(element("span", "text", row.text), track, element("span", "p", `${(100 * p).toFixed(p < 0.001 ? 4 : 1)} %`));
      return line;
    }),
  );
  const words = [`entropy ${found.entropy.toFixed(2)} nats`];
  if (state.next) {
    const surprisal = -((state.next.logit - found.max) / temperature - found.log_sum);
    words.push(`came: ${state.next.text}, rank ${state.next.rank}, surprisal ${surprisal.toFixed(2)} nats`);
  }
  return words.join(" · ");
}

export function render({ model, el }) {
  const root = element("div", "logitd-widget");
  const text = element("div", "tokens");
  const panel = element("div", "panel");
  const label = element("label", "temperature", "T = ");
  const shown_t = element("output", "", "1.00");
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: 100, step: "any", value: step_of(1) });
  const title = element("div", "title");
  const bars = element("div", "bars");
  const words = element("div", "words");
  slider.setAttribute("aria-label", "temperature");
  label.append(shown_t, slider);
  panel.append(title, label, bars, words);
  root.append(text, panel);
  el.append(root);

  let pinned = false;
  let logits = null;
  let logits_of = null;

  const choose = (position) => {
    if (position < 0 || !model.get("tokens")[position]?.asked) return;
    model.set("chosen", position);
    model.save_changes();
  };
  const draw_position = () => {
    const state = model.get("state");
    const temperature = temperature_of(Number(slider.value));
    shown_t.textContent = temperature.toFixed(2);
    words.textContent = model.get("error");
    if (!state.logits || model.get("error")) return;
    if (logits_of !== state) [logits, logits_of] = [floats(state.logits), state];
    title.textContent = `after “${model.get("tokens")[state.position].text}” (position ${state.position})`;
    words.textContent = draw_bars(bars, state, logits, temperature);
    [...text.querySelectorAll(".token")].forEach((token, i) => token.classList.toggle("chosen", i === state.position + 1));
  };
  const draw_tokens = () => {
    text.replaceChildren(
      ...model.get("tokens").map((token, i) => {
        const made = element("span", "token", token.lines.join("\n"));
        made.style.background = token.colour;
        made.title = token.value;
        made.tabIndex = 0;
        made.setAttribute("role", "button");
        made.addEventListener("mouseenter", () => pinned || choose(i - 1));
        made.addEventListener("focus", () => pinned || choose(i - 1));
        made.addEventListener("click", () => {
          pinned = !pinned;
          choose(i - 1);
        });
        return made;
      }),
    );
  };
  slider.addEventListener("input", draw_position);
  model.on("change:tokens", draw_tokens);
  model.on("change:state", draw_position);
  model.on("change:error", draw_position);
  draw_tokens();
  draw_position();
}

export default { render };
