"use strict";
// Starts the client. A file of its own, for the front-end's content security policy lets nothing inline
// run; it finds the wasm and its glue by the preload links that trunk has written.
(() => {
  try {
    const theme = localStorage.getItem("kvservice.theme");
    if (theme === "light" || theme === "dark") {
      document.documentElement.setAttribute("data-theme", theme);
    }
  } catch {
    // No storage: the system's theme it is.
  }

  const fail = (error) => {
    console.error(error);
    const place = document.getElementById("boot");
    if (place) {
      place.className = "connection down";
      place.textContent = "The page could not start: reload it";
    }
  };

  const start = async () => {
    const glue = document.querySelector("link[rel=modulepreload]").href;
    const wasm = document.querySelector("link[rel=preload][as=fetch]").href;
    const { default: init } = await import(glue);
    await init({ module_or_path: wasm });
  };

  document.addEventListener("DOMContentLoaded", () => start().catch(fail));
})();
