//! Frames between nodes: whose they are, and the hardware address that leads each on.

use std::net::Ipv4Addr;

/// Most nodes that have an address each. The one after it is the people's.
pub(super) const NODES_MAX: usize = 253;

/// Hardware address.
pub(super) type Hardware = [u8; 6];

/// Hardware address of the detour: frames for it come to this program.
pub(super) const DETOUR: Hardware = [2, 0, 0, 2, 0, 0];

/// Where the parts of an Ethernet frame with an IPv4 packet begin.
const TYPE_AT: usize = 12;
const IP_AT: usize = 14;
const PROTOCOL_AT: usize = IP_AT + 9;
const FROM_AT: usize = IP_AT + 12;
const TO_AT: usize = IP_AT + 16;
/// Where the flags of a TCP segment are.
const FLAGS_AT: usize = 13;
/// Bytes of the headers of IP and TCP without options.
const HEADERS: usize = 40;

const IPV4: [u8; 2] = [8, 0];
const TCP: u8 = 6;
const SYN: u8 = 2;
const ACK: u8 = 16;

/// Ends of a frame, and its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    /// Numbers of the nodes that it goes between.
    pub(super) from: usize,
    pub(super) to: usize,
    /// Bytes of the packet without headers of the usual size.
    pub(super) len: usize,
    /// Whether it asks for a connection.
    pub(super) is_syn: bool,
}

/// Returns the address of a node.
pub(super) fn address(nth: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last(nth))
}

/// Returns the hardware address of a node.
pub(super) fn hardware(nth: usize) -> Hardware {
    [2, 0, 0, 0, 0, last(nth)]
}

/// Returns the last byte of a node's addresses.
fn last(nth: usize) -> u8 {
    u8::try_from(nth + 1).unwrap_or(u8::MAX)
}

/// Returns a hardware address as the system's programs write it.
pub(super) fn text(address: Hardware) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// Reads a frame; nothing when it did not come for the detour, or is not between two of so many nodes.
pub(super) fn read(frame: &[u8], nodes: usize) -> Option<Frame> {
    if frame.get(..6)? != DETOUR || frame.get(TYPE_AT..IP_AT)? != IPV4 {
        return None;
    }
    let node = |at: usize| match frame.get(at..at + 4)? {
        [10, 0, 0, last] => usize::from(*last).checked_sub(1).filter(|nth| *nth < nodes),
        _ => None,
    };
    let (from, to) = (node(FROM_AT)?, node(TO_AT)?);
    let tcp_at = IP_AT + usize::from(frame[IP_AT] & 0xf) * 4;
    let flags = frame.get(tcp_at + FLAGS_AT).copied().unwrap_or_default();
    let is_syn = frame[PROTOCOL_AT] == TCP && flags & (SYN | ACK) == SYN;
    Some(Frame { from, to, len: (frame.len() - IP_AT).saturating_sub(HEADERS), is_syn })
}

/// Returns a frame as the bridge brings it to a node.
pub(super) fn for_node(frame: &[u8], nth: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    frame[..6].copy_from_slice(&hardware(nth));
    // The bridge would learn that its sender is here.
    frame[6..12].copy_from_slice(&DETOUR);
    frame
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Returns a frame from one node to another one with a TCP segment of these flags.
    pub(in crate::real) fn segment(from: usize, to: usize, flags: u8, data: &[u8]) -> Vec<u8> {
        let mut frame = [DETOUR, hardware(from)].concat();
        frame.extend(IPV4);
        // A header of 24 bytes, with an option.
        frame.extend([0x46, 0, 0, 0, 0, 0, 0, 0, 64, TCP, 0, 0]);
        frame.extend(address(from).octets());
        frame.extend(address(to).octets());
        frame.extend([1, 1, 1, 0]);
        frame.extend([0; FLAGS_AT]);
        frame.push(flags);
        frame.extend([0; 6]);
        frame.extend(data);
        frame
    }

    #[test]
    fn frame_tells_its_ends_and_whether_it_asks_for_a_connection() {
        let of = |flags| read(&segment(0, 2, flags, b"abc"), 3);
        let asks = Frame { from: 0, to: 2, len: 4 + 3, is_syn: true };
        assert_eq!(of(SYN), Some(asks));
        let other = Some(Frame { is_syn: false, ..asks });
        assert_eq!((of(SYN | ACK), of(ACK), of(0)), (other, other, other));
    }

    #[test]
    fn frame_that_is_not_between_two_nodes_is_nobodys() {
        let frame = segment(0, 2, SYN, b"");
        assert_eq!(read(&frame, 2), None, "there are only two");
        assert_eq!(read(&segment(253, 1, SYN, b""), 2), None, "the people's");
        let mut arp = frame.clone();
        arp[TYPE_AT + 1] = 6;
        let mut direct = frame.clone();
        direct[..6].copy_from_slice(&hardware(2));
        assert_eq!((read(&arp, 3), read(&direct, 3)), (None, None));
        // A frame that ends early, wherever it does, is read without a panic.
        for len in 0..frame.len() {
            let read = read(&frame[..len], 3);
            assert!(read.is_none() || len >= TO_AT + 4, "{len}: {read:?}");
        }
    }

    #[test]
    fn frame_goes_on_to_its_node_in_the_name_of_the_detour() {
        let frame = segment(0, 2, SYN, b"abc");
        let on = for_node(&frame, 2);
        assert_eq!(on[..12], [hardware(2), DETOUR].concat());
        assert_eq!(on[12..], frame[12..], "and nothing else changes");
    }
}
