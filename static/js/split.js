// T' and its slider: whichever is moved, the other follows. Both are counted on the noise schedule of the chosen model, which says how far
// the slider goes; the split to begin with is the paper's noise on any of them. Without this module the slider stays hidden and the number does it all.
const form = document.getElementById("recipe-form");
const number = form?.elements.namedItem("t_prime");
const schedule = form?.elements.namedItem("schedule");
const slider = document.getElementById("split-slider");

// What the chosen model's T' may be, or undefined where none is chosen or its schedule is not known.
function chosen() {
  const { leastSplit, mostSplit, paperSplit } = schedule.selectedOptions[0]?.dataset ?? {};
  return leastSplit === undefined ? undefined : { leastSplit, mostSplit, paperSplit };
}

function fit(values) {
  slider.hidden = values === undefined;
  if (values) Object.assign(slider, { min: values.leastSplit, max: values.mostSplit });
  slider.value = number.value;
}

if (slider) {
  let before = chosen();
  fit(before);
  schedule.addEventListener("input", () => {
    const values = chosen();
    if (values && before && number.value === before.paperSplit) number.value = values.paperSplit;
    before = values ?? before;
    fit(values);
  });
  slider.addEventListener("input", () => { number.value = slider.value; });
  number.addEventListener("input", () => { slider.value = number.value; });
}
