//! QUIC packets and connection ids, beside a plain reading of the draft.

use lb_common::affinity::quic::{Decoder, Encoder, Layout, MAX_CID, ServerId, destination};

/// A datagram: two bytes for the lengths, sixteen for the key, one that says whether there is one, then the packet.
pub fn quic(data: &[u8]) {
    let [server, nonce, key @ ..] = data else { return };
    let Some((key, [keyed, packet @ ..])) = key.split_first_chunk::<16>() else { return };
    let Ok(layout) = Layout::new(server % 18, nonce % 20) else { return };
    let key = (keyed & 1 != 0).then_some(key);
    let decoder = Decoder::new(layout, key);
    let found = destination(packet);
    assert_eq!(found, plainly(packet));
    let Some(id) = found else { return };
    let read = decoder.server_id(id);
    assert_eq!(read.is_some(), id.len() >= layout.cid().into(), "{id:02x?}");
    let Some(read) = read else { return };
    assert_eq!(read.len(), layout.server());
    if key.is_none() {
        assert_eq!(Some(read), ServerId::new(&id[1..1 + usize::from(layout.server())]));
    }
    // What the packet names, an encoder can name too.
    let mut seed = [0; 32];
    seed.iter_mut().zip(packet).for_each(|(to, from)| *to = *from);
    let encoder = Encoder::new(keyed >> 1 & 3, layout, read, key, &seed);
    let made = encoder.expect("rotation and lengths are right").encode().expect("the first nonce");
    assert!(made.as_bytes().len() <= MAX_CID);
    assert_eq!(decoder.server_id(made.as_bytes()), Some(read));
}

/// Where RFC 8999 says that the destination connection id is.
fn plainly(packet: &[u8]) -> Option<&[u8]> {
    let first = packet.first()?;
    if *first < 0x80 {
        return Some(&packet[1..]);
    }
    let len = usize::from(*packet.get(5)?);
    packet.get(6..6 + len)
}
