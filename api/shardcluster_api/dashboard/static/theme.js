// Light or dark: as the system says, until somebody chooses.

const STORED = "shardcluster-theme";
const NEXT = { system: "light", light: "dark", dark: "system" };
const WORDS = { system: "Theme: system", light: "Theme: light", dark: "Theme: dark" };

function stored() {
  try {
    return localStorage.getItem(STORED) ?? "system";
  } catch {
    return "system"; // storage can be forbidden
  }
}

function apply(button, choice) {
  if (choice === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = choice;
  button.textContent = WORDS[choice] ?? WORDS.system;
}

export function themes(button) {
  let choice = stored() in NEXT ? stored() : "system";
  apply(button, choice);
  button.addEventListener("click", () => {
    choice = NEXT[choice];
    apply(button, choice);
    try {
      localStorage.setItem(STORED, choice);
    } catch {
      // then it lasts as long as the page
    }
  });
}
