// Serves the page's files from a folder, so that a change shows without building the programs, or
// without the page's policy.

import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";

const TYPES = { js: "text/javascript", css: "text/css", svg: "image/svg+xml" };

async function install(context, { dir, policy }) {
  if (dir) {
    await context.route(
      (url) => url.pathname.startsWith("/page/"),
      async (route) => {
        const name = basename(new URL(route.request().url()).pathname);
        const contentType = TYPES[name.split(".").at(-1)];
        await route.fulfill({ body: await readFile(join(dir, name)), contentType });
      },
    );
  }
  await context.route(
    (url) => url.pathname === "/",
    async (route) => {
      try {
        const response = await route.fetch();
        const headers = response.headers();
        if (!policy) delete headers["content-security-policy"];
        const own = await response.text();
        const masters = /name="masters" content="([^"]*)"/.exec(own)?.[1] ?? "";
        const page = dir ? await readFile(join(dir, "index.html"), "utf8") : own;
        await route.fulfill({ response, headers, body: page.replace("{{masters}}", masters) });
      } catch {
        await route.abort();
      }
    },
  );
}

// For every context of this browser, also after a check removed its own routes.
export function servePage(browser, how) {
  const open = browser.newContext.bind(browser);
  browser.newContext = async (options) => {
    const context = await open(options);
    const clear = context.unrouteAll.bind(context);
    context.unrouteAll = async () => {
      await clear();
      await install(context, how);
    };
    await install(context, how);
    return context;
  };
}
