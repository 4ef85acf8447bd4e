// The dialog that asks whether something is meant.

const dialog = document.getElementById("confirm");

let answer = null; // takes whether what is asked now is wanted

// Asks before something is done; resolves to whether it is wanted.
export function confirm(title, text, yes) {
  document.getElementById("confirm-title").textContent = title;
  document.getElementById("confirm-text").textContent = text;
  document.getElementById("confirm-yes").textContent = yes;
  answer?.(false);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    answer = resolve;
  });
}

dialog.addEventListener("close", () => {
  if (dialog.open) return; // it closed for the question before, and is open for this one
  answer?.(dialog.returnValue === "yes");
  answer = null;
});
