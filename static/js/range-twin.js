// A slider beside a number field: whichever is moved, the other follows. Without this module the slider stays hidden and the number does it all.
for (const pair of document.querySelectorAll("[data-range-twin]")) {
  const number = pair.querySelector('input[type="number"]');
  const range = pair.querySelector('input[type="range"]');
  range.value = number.value;
  range.hidden = false;
  range.addEventListener("input", () => { number.value = range.value; });
  number.addEventListener("input", () => { range.value = number.value; });
}
