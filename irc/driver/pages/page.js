// What all pages share: the report, the theme, numbers as text, and downloads.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);

// An element with attributes and children; text becomes text nodes, never markup.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false)
      made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function formatCount(number) {
  if (number < 1000) return `${Math.round(number)} `;
  const units = ["k", "M", "G", "T", "P", "E"];
  let amount = number / 1000,
    unit = 0;
  while (amount >= 999.95 && unit < units.length - 1) {
    amount /= 1000;
    unit += 1;
  }
  return `${amount.toFixed(1)} ${units[unit]}`;
}

const formatBytes = (number) => `${formatCount(number)}B`;

function formatTime(microseconds) {
  if (microseconds >= 1000) return `${Number((microseconds / 1000).toPrecision(3))} ms`;
  return `${Number(microseconds.toPrecision(3))} µs`;
}

const counted = (number, noun, plural = `${noun}s`) => `${number} ${number === 1 ? noun : plural}`;

function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

// A table as CSV. A cell that a spreadsheet would evaluate as a formula is quoted as text.
function csv(rows) {
  const cell = (value) => {
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? "");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",") + "\n").join("");
}

// The color that the style sheet gives a name, in the current theme.
const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

const themes = []; // called when the theme changes
function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  for (const each of themes) each();
}
const systemTheme = matchMedia("(prefers-color-scheme: dark)");
setTheme(systemTheme.matches ? "dark" : "light");
systemTheme.addEventListener("change", () => setTheme(systemTheme.matches ? "dark" : "light"));
document.getElementById("theme").addEventListener("click", () => {
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
});
