// How fast somebody rates. Pure.

export function createPace({ now = () => Date.now() } = {}) {
  const decisions = []; // Moments of the last answers, in ms.

  return {
    note() {
      decisions.push(now());
      if (decisions.length > 60) decisions.shift();
    },
    /** Answers a minute over the last minutes; breaks of more than a minute do not count. */
    read() {
      let spent = 0;
      let steps = 0;
      for (let index = 1; index < decisions.length; index += 1) {
        const step = decisions[index] - decisions[index - 1];
        if (step > 60000) continue;
        spent += step;
        steps += 1;
      }
      return steps < 4 ? 0 : Math.max(1, Math.round(steps / (spent / 60000)));
    },
  };
}
