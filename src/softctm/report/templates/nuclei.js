"use strict";
const stage = document.querySelector(".stage");
if (stage) {
  const modes = ["by-outcome", "predicted-types", "true-types"];
  const setMode = (mode) => { for (const name of modes) stage.classList.toggle(name, name === mode); };
  for (const input of stage.querySelectorAll("input[name=mode]")) {
    input.addEventListener("change", () => setMode(input.value));
  }
  for (const box of stage.querySelectorAll("input[data-outcome]")) {
    box.addEventListener("change", () => stage.classList.toggle(`hide-${box.dataset.outcome}`, !box.checked));
  }
  const buttons = [...stage.querySelectorAll(".choices button[data-image]")];
  const show = (chosen) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button === chosen));
    for (const figure of stage.querySelectorAll("figure[data-image]")) {
      figure.hidden = figure.dataset.image !== chosen.dataset.image;
    }
  };
  for (const button of buttons) button.addEventListener("click", () => show(button));
  const zoom = stage.querySelector("input[type=range]");
  const resize = () => {
    for (const picture of stage.querySelectorAll(".frame svg")) {
      picture.style.width = `${Number(zoom.value) * picture.viewBox.baseVal.width / 200}px`;
    }
    stage.querySelector("output").value = `${zoom.value} %`;
  };
  zoom.addEventListener("input", resize);
  resize();
}
