// What is kept: in the browser, or as long as the page where the browser does not keep it.

function keeper(name) {
  // The storage is full, or forbidden, and then already a look at it throws.
  const here = new Map();
  return {
    get(key) {
      if (here.has(key)) return here.get(key);
      try {
        return window[name].getItem(key);
      } catch {
        return null;
      }
    },
    set(key, value) {
      here.delete(key);
      try {
        window[name].setItem(key, value);
      } catch {
        here.set(key, value);
      }
    },
  };
}

/** Until the tab is closed. */
export const tab = keeper("sessionStorage");
/** For all tabs, for ever. */
export const browser = keeper("localStorage");
