//! Parser of server-sent events, fed with bytes in any pieces.
//!
//! The format is the HTML standard's: lines end in LF, CR or CRLF; an empty line ends an event;
//! an id stays until another is given; lines that begin with `:` are comments. An event over
//! [`EVENT_LEN_MAX`] is an error, whatever its parts.

use memchr::memchr2;
use thiserror::Error;

/// Largest event, in bytes of its lines: a list of tens of thousands of people fits.
pub(super) const EVENT_LEN_MAX: usize = 4 * 1024 * 1024;

/// One event, not interpreted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RawEvent {
    /// Its name; `message` when none was given.
    pub(super) name: String,
    /// The last id given so far.
    pub(super) id: Option<String>,
    /// Its data, lines joined by LF.
    pub(super) data: String,
}

/// Error after which the stream cannot be read on.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(super) enum SseError {
    /// An event is over the bound.
    #[error("an event is over {EVENT_LEN_MAX} bytes")]
    TooLong,
    /// A line is not UTF-8.
    #[error("a line is not UTF-8")]
    NotText,
}

/// Parser with the part of an event that has arrived.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    /// The last byte was CR: an LF after it belongs to it.
    after_cr: bool,
    /// Length of this event's lines so far, in bytes.
    len: usize,
    name: String,
    data: Option<String>,
    id: Option<String>,
}

impl Parser {
    /// Takes some bytes and appends the events that they complete to `out`.
    ///
    /// # Errors
    /// [`SseError`]; the parser is of no use afterwards.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<RawEvent>) -> Result<(), SseError> {
        let mut rest = bytes;
        while let Some(first) = rest.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                rest = &rest[1..];
                continue;
            }
            let end = memchr2(b'\n', b'\r', rest);
            let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
            self.len += part.len();
            if self.len > EVENT_LEN_MAX {
                return Err(SseError::TooLong);
            }
            self.line.extend_from_slice(part);
            let Some((end, after)) = after.split_first() else { break };
            self.after_cr = *end == b'\r';
            rest = after;
            let line = std::mem::take(&mut self.line);
            let line = std::str::from_utf8(&line).map_err(|_| SseError::NotText)?;
            out.extend(self.on_line(line));
        }
        Ok(())
    }

    fn on_line(&mut self, line: &str) -> Option<RawEvent> {
        if line.is_empty() {
            self.len = 0;
            let name = std::mem::take(&mut self.name);
            // An event without data is none; its id counts all the same.
            let data = self.data.take()?;
            let name = if name.is_empty() { "message".to_owned() } else { name };
            return Some(RawEvent { name, id: self.id.clone(), data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // Comments begin with the colon; other fields are for later versions.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Vec<RawEvent> {
        let mut out = Vec::new();
        Parser::default().push(text.as_bytes(), &mut out).expect("well-formed");
        out
    }

    #[test]
    fn examples_of_the_standard_are_parsed() {
        let events = parse(": hi\n\ndata: a\ndata: b\nid: 1\n\nevent: post\ndata:c\n\ndata: cut");
        let read: Vec<_> =
            events.iter().map(|e| (e.name.as_str(), e.id.as_deref(), e.data.as_str())).collect();
        assert_eq!(read, [("message", Some("1"), "a\nb"), ("post", Some("1"), "c")]);
        assert_eq!(parse("data\r\n\r\n")[0].data, "");
        assert_eq!(parse("data: x\r\rdata: y\n\n").len(), 2);
        assert!(parse("event: nothing\n\n").is_empty());
    }

    #[test]
    fn event_above_the_bound_is_refused() {
        let mut parser = Parser::default();
        let piece = vec![b'x'; EVENT_LEN_MAX / 2];
        let mut out = Vec::new();
        assert_eq!(parser.push(b"data: ", &mut out), Ok(()));
        assert_eq!(parser.push(&piece, &mut out), Ok(()));
        assert_eq!(parser.push(b"\ndata: ", &mut out), Ok(()));
        assert_eq!(parser.push(&piece, &mut out), Err(SseError::TooLong));
    }

    proptest! {
        #[test]
        fn bytes_cut_anywhere_give_the_same_events(
            text in "(data|event|id|:)?[:\r\n a-c]{0,40}\n\n(data: [a-c]*\r\n\r\n){0,3}",
            cuts in proptest::collection::vec(0_usize..60, 0..6),
        ) {
            let whole = parse(&text);
            let (mut parser, mut out, mut from) = (Parser::default(), Vec::new(), 0);
            let mut cuts = cuts;
            cuts.sort_unstable();
            for cut in cuts.into_iter().chain([text.len()]) {
                let cut = cut.clamp(from, text.len());
                parser.push(&text.as_bytes()[from..cut], &mut out).expect("well-formed");
                from = cut;
            }
            prop_assert_eq!(out, whole);
        }
    }
}
