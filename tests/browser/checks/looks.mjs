// Pictures for a person to look at.

import { until } from "../cluster.mjs";
import { Person } from "../people.mjs";

const TALK = [
  ["Ada", "Morning! The night's run finished: 4,000 seeds, nothing found."],
  ["Ada", "I left the story file in the second folder."],
  ["Grace", "Lovely. Did the partition one survive?"],
  [
    "Linus",
    "It did. Took 11 s to settle, which is what the bound says.\n\nI would still like a picture of it.",
  ],
  ["Grace", "Here is what I do:\n  chatchat-sim run partition --seed 7\nand then open the page it writes."],
  ["Linus", "Who restarted the north master?"],
  ["Ada", "Me, to see whether anyone would notice."],
  ["Ada", "Nobody did."],
];

const SIZES = [
  ["desktop", { viewport: { width: 1280, height: 800 } }],
  ["desktop-dark", { viewport: { width: 1280, height: 800 }, colorScheme: "dark" }],
  ["phone", { viewport: { width: 390, height: 780 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true }],
  [
    "phone-dark",
    {
      viewport: { width: 390, height: 780 },
      deviceScaleFactor: 2,
      isMobile: true,
      hasTouch: true,
      colorScheme: "dark",
    },
  ],
  ["narrow", { viewport: { width: 320, height: 568 }, deviceScaleFactor: 2 }],
  ["narrow-dark", { viewport: { width: 320, height: 568 }, deviceScaleFactor: 2, colorScheme: "dark" }],
];

const screenshots = (sizes) => async ({ browser, cluster, wrong, out }) => {
  const urls = cluster.masters.map((master) => cluster.url(master));
  const people = new Map();
  for (const [n, name] of ["Ada", "Grace", "Linus"].entries()) {
    people.set(
      name,
      await (await Person.at(browser, urls[n % urls.length], wrong)).join(name, { exactly: true }),
    );
  }
  for (const [name, text] of TALK) {
    await people.get(name).say(text);
    await people.get(name).settled();
  }
  for (const [name, options] of sizes) {
    const guest = await Person.at(browser, urls[1], wrong, options);
    await guest.page.waitForSelector("#join-form:not([hidden])");
    await guest.page.screenshot({ path: `${out}/${name}-join.png` });
    await guest.join("Margaret", { exactly: true });
    await guest.sees("Nobody did.");
    await until("everyone", async () => (await guest.people()).length >= 4, 8000);
    if (name.startsWith("desktop")) await guest.page.click("#cluster summary");
    await guest.say("Good morning, all.");
    await guest.settled();
    await guest.page.waitForTimeout(300);
    await guest.page.screenshot({ path: `${out}/${name}.png` });
    if (!name.startsWith("desktop")) {
      await guest.page.click("#show-people");
      await guest.page.waitForTimeout(300);
      await guest.page.screenshot({ path: `${out}/${name}-people.png` });
    }
    await guest.close();
  }
};

export const checks = [["screenshots", screenshots(SIZES)]];

// What the gate asks: a wide page and a narrow one, each in one of the two schemes.
export const short = [["screenshots", screenshots(SIZES.filter(([name]) => ["desktop", "phone-dark"].includes(name)))]];
