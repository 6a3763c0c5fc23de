// Shows the value nearest to the pointer. Without this script the browser shows the circles' titles.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  document.body.append(tip);
  let marked = null;
  const hide = () => {
    tip.style.display = "none";
    if (marked) marked.classList.remove("marked");
    marked = null;
  };
  const show = (point) => {
    hide();
    marked = point;
    point.classList.add("marked");
    tip.textContent = point.dataset.text;
    tip.style.display = "block";
    const box = point.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), innerWidth - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above > 8 ? above : box.bottom + 8) + scrollY}px`;
  };
  for (const svg of document.querySelectorAll("figure svg")) {
    const points = [...svg.querySelectorAll(".hover circle")];
    for (const point of points) {
      const title = point.querySelector("title");
      point.dataset.text = title.textContent;
      title.remove();
    }
    if (!points.length) continue;
    svg.addEventListener("pointermove", (event) => {
      let nearest = null, least = 32;
      for (const point of points) {
        const box = point.getBoundingClientRect();
        const distance = Math.hypot(event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2);
        if (distance < least) [nearest, least] = [point, distance];
      }
      if (nearest === null) hide();
      else if (nearest !== marked) show(nearest);
    });
    svg.addEventListener("pointerleave", hide);
  }
  addEventListener("scroll", hide, { passive: true });
  addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("details")) part.open = true; });
})();
