// nginx on one host, with the block of docs/operate.md, and people who come through it.

import { spawnSync } from "node:child_process";

import { sleep, until } from "../browser/cluster.mjs";
import { Person, Reader, reach_by_tls, request_to } from "../cluster/people.mjs";
import { AGAIN_WITHIN_MS } from "../cluster/weigh.mjs";

const URL_OF_ALL = "https://chat.example";
const BOARD = "through-a-proxy";
// Time from the answer to a post until its event is with a reader: a proxy that buffers keeps it for much longer.
const PROMPT_MS = 2_000;
// Time until there is a stream, or none will come any more.
const STREAMS_MS = 12_000;

// Why nginx cannot be run here, if it cannot.
export function why_no_proxy() {
  return spawnSync("which", ["nginx"]).status === 0 ? undefined : "nginx is not installed (Debian: apt-get install nginx)";
}

// Starts nginx on a host, with this block as the guide gives it; people find and trust it from then on.
export async function start_proxy(host, block) {
  const certificate = await host.run(`openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
    -keyout /etc/nginx/chat.key -out /etc/nginx/chat.pem -subj /CN=chat.example -addext subjectAltName=DNS:chat.example
cat > /etc/nginx/conf.d/chatchat.conf <<'END'
${block}END
nginx -t -q
nginx
cat /etc/nginx/chat.pem`);
  reach_by_tls(host.address, certificate);
}

export async function stop_proxy(host) {
  await host.run("nginx -s quit");
}

// Has a person write and read through the proxy, while `kill` ends the master of the given name that serves
// the stream. Throws what did not hold; returns a line of what did, and the person, whose posts are to be checked.
export async function through_proxy(nth, seconds, kill) {
  const page = await fetched(`${URL_OF_ALL}/`);
  if (page.status !== 200 || !/<html/i.test(page.text)) throw new Error(`the page: ${page.status} ${page.text.slice(0, 200)}`);
  const person = await Person.join([URL_OF_ALL], nth, BOARD);
  const status = await person.create(BOARD);
  if (status !== 200 && status !== 201) throw new Error(`the board: ${status}`);
  const reader = new Reader([URL_OF_ALL], person, BOARD, 0);
  const came = new Map();
  reader.on_post = (seq) => came.set(seq, came.get(seq) ?? Date.now());
  reader.start();
  await until("a stream", () => reader.hellos > 0, STREAMS_MS);
  person.start();
  try {
    await sleep(seconds * 1000);
    const prompt = slowest(person, came);
    const { master, hellos } = reader;
    const killed = Date.now();
    await kill(master);
    await until(`a stream after ${master}`, () => reader.hellos > hellos, STREAMS_MS);
    const again = Date.now() - killed;
    if (again > AGAIN_WITHIN_MS.killed) throw new Error(`the stream went on ${again} ms after ${master} was killed`);
    const before = person.sent.length;
    await until("posts after it", () => person.sent.filter((post) => post.seq).length > before + 1, STREAMS_MS);
    person.stop();
    await person.done;
    const last = Math.max(...person.sent.map((post) => post.seq));
    await until(`event of post ${last}`, () => reader.seq >= last, PROMPT_MS);
    if (reader.gaps.length > 0) throw new Error(`the stream: ${reader.gaps}`);
    const line = `an event came ${prompt} ms after its post was answered at most; ${master} was killed, and the stream went on at ${reader.master} after ${again} ms`;
    return { line, person };
  } finally {
    person.stop();
    reader.stop();
  }
}

// Longest time from the answer to a post until its event.
function slowest(person, came) {
  const acked = person.sent.filter((post) => post.seq);
  const waits = acked.map((post) => (came.get(post.seq) ?? Date.now()) - post.acked);
  // The last one may be under way.
  const most = Math.max(0, ...waits.slice(0, -1));
  if (acked.length < 2 || most > PROMPT_MS) throw new Error(`events of ${acked.length} posts came after ${waits} ms`);
  return most;
}

function fetched(url) {
  return new Promise((done, failed) => {
    const request = request_to(url, {}, (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (part) => (text += part));
      answer.on("end", () => done({ status: answer.statusCode, text }));
      answer.on("error", failed);
    });
    request.setTimeout(5_000, () => request.destroy(new Error("no answer")));
    request.on("error", failed);
    request.end();
  });
}
