// Python wants an empty line after an indented block that is pasted. A doctest has none: here is one for the copy
// button, which nobody sees.
document.addEventListener("DOMContentLoaded", () => {
  for (const code of document.querySelectorAll(".highlight pre")) {
    let before = "";
    for (const prompt of code.querySelectorAll(".gp")) {
      if (before.startsWith("...") && prompt.textContent.startsWith(">>>")) {
        const line = document.createElement("span");
        line.hidden = true;
        line.textContent = "... \n";
        prompt.before(line);
      }
      before = prompt.textContent;
    }
  }
});
