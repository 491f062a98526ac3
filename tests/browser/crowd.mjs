// Many people without a browser: each has a session and an open stream, which is read.

const AT_ONCE = 20;

// Answers beats, as a page does, so that a person stays on the list.
const ALIVE_MS = 5000;

export class Crowd {
  // `count` people named `NAME 000` and so on, at the master at `url`.
  static async at(url, name, count) {
    const crowd = new Crowd();
    crowd.url = url;
    crowd.tokens = [];
    crowd.end = new AbortController();
    const names = Array.from({ length: count }, (_, n) => `${name} ${String(n).padStart(3, "0")}`);
    while (names.length > 0) await Promise.all(names.splice(0, AT_ONCE).map((one) => crowd.join(one)));
    crowd.timer = setInterval(() => crowd.beat(), ALIVE_MS);
    return crowd;
  }

  call(method, path, token, body) {
    return fetch(`${this.url}/api/v1/${path}`, {
      method,
      headers: { ...(token && { Authorization: `Bearer ${token}` }), "Content-Type": "application/json" },
      body: body && JSON.stringify(body),
      signal: this.end.signal,
    });
  }

  async join(name) {
    const answer = await this.call("POST", "sessions", null, { name });
    if (answer.status !== 201) throw new Error(`${name} did not get in: ${answer.status}`);
    const { token } = await answer.json();
    const stream = await this.call("GET", "stream", token);
    this.tokens.push(token);
    this.drain(stream.body.getReader());
  }

  async drain(reader) {
    try {
      while (!(await reader.read()).done);
    } catch {
      // The crowd left.
    }
  }

  beat() {
    for (const token of this.tokens) this.call("POST", "session/alive", token).catch(() => {});
  }

  // Some of them log out.
  async leave(count) {
    await Promise.all(this.tokens.splice(0, count).map((token) => this.call("DELETE", "session", token)));
  }

  close() {
    clearInterval(this.timer);
    this.end.abort();
  }
}
