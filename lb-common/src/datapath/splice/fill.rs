//! Which held bytes a packet gets that was left to the program at the ingress of the stack.

use crate::abi::{Filling, HOLD_FRONT, HOLD_LEN, HOLD_SLACK};
use crate::packet::opaque_offset;

/// Place of the first byte, from the beginning of the room for a PROXY protocol header, and number of bytes, which is
/// not 0; `front` is [`crate::abi::Hold::front`]. From any place the slack lets so many be read.
#[inline(always)]
pub fn filled(filling: &Filling, front: u32) -> Option<(usize, u32)> {
    let place = (HOLD_FRONT as u32).wrapping_sub(front).wrapping_add(filling.from as u32);
    // One register each is compared and used, so that the verifier knows the bounds of what is used.
    let (place, len) = (opaque_offset(place as usize), opaque_offset(filling.len as usize));
    if place >= HOLD_FRONT + HOLD_LEN || len == 0 || len > HOLD_SLACK {
        return None;
    }
    Some((place, len as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_in_the_hold() {
        let filling = |from, len| Filling { from, len, ..Filling::default() };
        assert_eq!(filled(&filling(0, 1), 0), Some((HOLD_FRONT, 1)));
        assert_eq!(filled(&filling(0, 1_460), 28), Some((HOLD_FRONT - 28, 1_460)));
        assert_eq!(filled(&filling(8_191, 2_048), 0), Some((HOLD_FRONT + 8_191, 2_048)));
        for (filling, front) in
            [(filling(0, 0), 0), (filling(0, 2_049), 0), (filling(8_192, 1), 0), (filling(0, 1), 65)]
        {
            assert_eq!(filled(&filling, front), None, "{filling:?}");
        }
    }
}
