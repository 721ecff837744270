// Says so where the page itself does not come about: a part of it did not arrive, or this browser cannot read it. A plain script in words
// that old browsers know, for whatever else there is may be what is missing.

addEventListener("error", function (event) {
  // Once it is there the page tells its errors itself.
  if (window.temper) return;
  var isPart = event.target.localName === "script";
  if (!isPart && event.target !== window) return;
  document.body.setAttribute("data-state", "failed");
  document.getElementById("loading").hidden = true;
  document.getElementById("status").textContent = "The page has not started. See the message above.";
  var box = document.getElementById("error");
  box.textContent = isPart ? "Not all of the page has arrived. Reload it: it then asks again for what is missing."
    : "The page cannot start (" + event.message + "). A newer browser may be able to run it.";
  box.hidden = false;
}, true);
