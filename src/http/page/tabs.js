// All tabs of one person on one origin: one leads (holds the stream, drives the outbox), the
// others follow what it tells them. Browsers allow six connections per host, and a stream is one.

export class Tabs {
  // `onLead()` once, when this tab becomes the leader; `onTold(message)` for what the leader says.
  constructor(name, { onLead, onTold, onAsked }) {
    this.leading = false;
    this.channel = new BroadcastChannel(name);
    this.channel.onmessage = ({ data }) => {
      if (data.ask) {
        if (this.leading) onAsked(data.ask);
      } else if (!this.leading) {
        onTold(data.tell);
      }
    };
    const lead = () => {
      this.leading = true;
      onLead();
    };
    if (navigator.locks) {
      // Held until the tab closes or leaves.
      navigator.locks
        .request(
          name,
          () =>
            new Promise((release) => {
              this.release = release;
              lead();
            }),
        )
        .catch(() => {});
    } else {
      // Not a secure origin: each tab leads itself. The same ids make that harmless.
      lead();
    }
  }

  tell(message) {
    if (this.leading) this.channel.postMessage({ tell: message });
  }

  ask(message) {
    if (!this.leading) this.channel.postMessage({ ask: message });
  }

  close() {
    this.leading = false;
    this.release?.();
    this.channel.close();
  }
}
