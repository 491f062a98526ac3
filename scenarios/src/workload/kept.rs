//! Connections that people keep open between two requests for as long as a browser does.

use std::time::Duration;

use chatchat::env::{BoxStream, TaskGuard};
use dst_env::rng::Rng;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::person::{OpenPage, Person};
use crate::history::{Kept, KeptEnd};

/// Time allowed to connect and for each answer.
const LIMIT: Duration = Duration::from_secs(5);
/// Time after which a master closes a connection on which nothing is said, and the longest time for
/// which a person keeps one.
const MASTERS_CLOSE_AFTER: Duration = Duration::from_secs(120);
const LONGEST_IDLE: Duration = Duration::from_secs(140);
/// Longest head of an answer.
const HEAD_MAX: usize = 4096;

impl Person {
    /// Opens a connection to a master, asks, waits, and asks again over the same connection.
    pub(super) fn keep_connection(&self, page: &OpenPage, rng: &mut Rng) -> TaskGuard {
        let master: String = rng.pick(&self.stage.masters).clone();
        let idle = self.idle(rng);
        let (person, who) = (self.clone(), page.who);
        let keeping = async move {
            let address = master.trim_start_matches("http://").to_owned();
            let Ok(mut stream) = person.env.connect(&address, LIMIT).await else { return };
            let first = person.ask_over(&mut stream, &address).await;
            if first != KeptEnd::Answered(200) {
                return;
            }
            person.env.sleep(idle).await;
            let asked = person.stage.clock.now();
            let end = person.ask_over(&mut stream, &address).await;
            let ended = person.stage.clock.now();
            let kept = Kept { who, master, idle, asked, ended, end };
            person.recorder.history().kept.push(kept);
        };
        self.env.spawn("person's kept connection", keeping).abort_on_drop()
    }

    /// Returns for how long nothing is said: now and then for longer than a master keeps a connection
    /// that nobody uses, where the story goes on for long enough. That has draws of its own.
    fn idle(&self, rng: &mut Rng) -> Duration {
        let usual = rng.duration_between(Duration::from_secs(6), Duration::from_secs(40));
        let left = self.time_left();
        let mut long = self.rng(&format!("kept/{}", left.as_nanos()));
        let idle = long.duration_between(MASTERS_CLOSE_AFTER, LONGEST_IDLE);
        if long.odds(1, 3) && idle + LIMIT < left { idle } else { usual }
    }

    /// Asks a front end whether it is alive, over a connection that is open.
    async fn ask_over(&self, stream: &mut BoxStream, host: &str) -> KeptEnd {
        let asking = async {
            let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n");
            if stream.write_all(request.as_bytes()).await.is_err() || stream.flush().await.is_err()
            {
                return KeptEnd::Closed;
            }
            let (mut head, mut part) = (Vec::new(), [0; 512]);
            // The body is short, and in the same segment or read with the next head.
            while head.len() < HEAD_MAX {
                match stream.read(&mut part).await {
                    Ok(0) | Err(_) => return KeptEnd::Closed,
                    Ok(read) => head.extend_from_slice(&part[..read]),
                }
                if let Some(status) = status(&head) {
                    return KeptEnd::Answered(status);
                }
            }
            KeptEnd::Answered(0)
        };
        self.env.timeout(LIMIT, asking).await.unwrap_or(KeptEnd::Silent)
    }
}

/// Returns the status of an answer whose head and body are there.
fn status(bytes: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, body) = text.rsplit_once("\r\n\r\n")?;
    let last = head.rfind("HTTP/1.1 ").map(|at| &head[at..])?;
    let length = last.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    (body.len() >= length.unwrap_or(0)).then(|| last[9..].get(..3)?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_is_read_once_head_and_body_are_there() {
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(status(whole.as_bytes()), Some(200));
        for cut in 0..whole.len() {
            assert_eq!(status(&whole.as_bytes()[..cut]), None, "{cut}");
        }
        assert_eq!(status(b"HTTP/1.1 408 Late\r\n\r\n"), Some(408));
    }
}
