// Serves the page's files from a folder, so that a change shows without building the programs.

import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";

const TYPES = { js: "text/javascript", css: "text/css", svg: "image/svg+xml" };

async function install(context, dir) {
  await context.route(
    (url) => url.pathname.startsWith("/page/"),
    async (route) => {
      const name = basename(new URL(route.request().url()).pathname);
      const contentType = TYPES[name.split(".").at(-1)];
      await route.fulfill({ body: await readFile(join(dir, name)), contentType });
    },
  );
  await context.route(
    (url) => url.pathname === "/",
    async (route) => {
      try {
        const response = await route.fetch();
        const masters = /name="masters" content="([^"]*)"/.exec(await response.text())?.[1] ?? "";
        const page = await readFile(join(dir, "index.html"), "utf8");
        await route.fulfill({ response, body: page.replace("{{masters}}", masters) });
      } catch {
        await route.abort();
      }
    },
  );
}

// For every context of this browser, also after a check removed its own routes.
export function servePage(browser, dir) {
  const open = browser.newContext.bind(browser);
  browser.newContext = async (options) => {
    const context = await open(options);
    const clear = context.unrouteAll.bind(context);
    context.unrouteAll = async () => {
      await clear();
      await install(context, dir);
    };
    await install(context, dir);
    return context;
  };
}
