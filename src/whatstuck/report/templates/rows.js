// Finds, sorts and turns the pages of the rows. Without it the first page is there as plain HTML.
(() => {
  const [CAUSE, VERDICT, SLOTS, PATHS, LISTS, SORTS] = [0, 1, 2, 3, 4, 5];
  const part = (name) => document.getElementById(name);
  const data = JSON.parse(part("rows-data").textContent);
  const list = part("rows-list"), form = part("rows-find"), back = part("rows-back"), on = part("rows-on");
  const blank = (name) => part(name + "-template").content.firstElementChild.cloneNode(true);
  const text = (place) => {
    if (typeof place === "number") return data.texts[place];
    let next = 0;
    return data.texts[place[0]].replaceAll(data.gap, () => place[++next]);
  };

  // Texts only, never markup: what a row says cannot become part of the page.
  const fill = (node, said) => {
    for (const slot of node.querySelectorAll("[data-slot]")) slot.textContent = said[slot.dataset.slot] ?? "";
    for (const piece of node.querySelectorAll("[data-part]")) piece.hidden = !said[piece.dataset.part];
    return node;
  };
  const named = (names, places) => Object.fromEntries(names.map((name, index) => [name, text(places[index])]));

  const draw = (row) => {
    const said = named(data.slots, row[SLOTS]);
    data.lists.forEach((name, index) => { said[name] = row[LISTS][index].length > 0; });
    const node = fill(blank("row"), said);
    node.className = "stuck " + text(row[CAUSE]);
    for (const path of node.querySelectorAll("[data-path]")) {
      path.setAttribute("d", row[PATHS][data.paths.indexOf(path.dataset.path)] ?? "");
    }
    data.lists.forEach((name, index) => {
      const into = node.querySelector(`[data-list="${name}"]`);
      for (const [style, ...places] of row[LISTS][index].map((line) => data.lines[line])) {
        const item = fill(blank(name), named(data.items[name], places));
        if (name === "evidence") item.className = "proof " + text(style);
        into.append(item);
      }
    });
    return node;
  };

  const searched = ["prompt", "gold", "answer", "wrong", "place"].map((name) => data.slots.indexOf(name)).filter((index) => index >= 0);
  const texts = [];
  const words = (index) => texts[index] ??= searched.map((slot) => text(data.rows[index][SLOTS][slot])).join("\n").toLowerCase();

  let found = [], first = 0;
  const show = () => {
    list.replaceChildren(...found.slice(first, first + PAGE).map((index) => draw(data.rows[index])));
    const last = Math.min(first + PAGE, found.length), of = found.length.toLocaleString("en");
    part("rows-count").textContent = found.length ? `${first + 1} to ${last} of ${of}` : "No row fits.";
    back.disabled = first === 0;
    on.disabled = last >= found.length;
    back.hidden = on.hidden = found.length <= PAGE;
  };
  const find = () => {
    const { cause, verdict, sort } = form.elements;
    const wanted = (form.elements.words?.value ?? "").trim().toLowerCase();
    const said = (index) => text(data.rows[index][VERDICT]);
    const key = (index) => data.rows[index][SORTS][Number(sort.value)] ?? Infinity;
    found = [...data.rows.keys()].filter((index) => (!cause.value || text(data.rows[index][CAUSE]) === cause.value)
      && (verdict.value ? said(index) === verdict.value : said(index) !== "not_asked")
      && (!wanted || words(index).includes(wanted)));
    found.sort((one, other) => key(one) - key(other) || one - other);  // Infinity - Infinity is no number, so falls through
    first = 0;
    show();
  };
  const turn = (by) => { first += by; show(); list.scrollIntoView({ block: "start" }); };

  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", find);
  back.addEventListener("click", () => turn(-PAGE));
  on.addEventListener("click", () => turn(PAGE));
  form.hidden = false;
  find();
})();
