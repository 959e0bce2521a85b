// theme.js: light or dark, as Airflow was told; it keeps its choice in this origin's storage. Runs before anything is drawn.
"use strict";

(() => {
  const follow = () => {
    let chosen = null;
    try {
      chosen = localStorage.getItem("theme");
    } catch {
      // Storage may be switched off: the system's choice counts.
    }
    document.documentElement.dataset.theme = chosen === "light" || chosen === "dark" ? chosen : "system";
  };
  follow();
  addEventListener("storage", follow);
})();
