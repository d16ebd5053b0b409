//! Frames that nobody would send.

/// Ways to spoil a frame.
const WAYS: u32 = 9;

/// Spoils `frame`, `rounds` times, steered by `seed`; `other` is where splices come from.
pub fn mutate(frame: &[u8], other: &[u8], seed: u64, rounds: usize) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let mut dice = Dice(seed);
    for _ in 0..rounds {
        spoil(&mut frame, other, &mut dice);
    }
    frame.truncate(1600);
    frame
}

fn spoil(frame: &mut Vec<u8>, other: &[u8], dice: &mut Dice) {
    if frame.is_empty() {
        frame.extend(other);
        return;
    }
    let length = frame.len();
    // Headers are where it matters.
    let near =
        |dice: &mut Dice| if dice.below(4) > 0 { dice.below(length.min(80)) } else { dice.below(length) };
    match dice.below(WAYS as usize) {
        0 => {
            let at = near(dice);
            frame[at] ^= 1 << dice.below(8);
        }
        1 => {
            let at = near(dice);
            frame[at] = [0, 1, 0x7f, 0x80, 0xff, dice.byte()][dice.below(6)];
        }
        2 => frame.truncate(dice.below(length)),
        3 => frame.truncate(length - dice.below(length.min(12))),
        // Lengths: IPv4 header, total length, fragment field; IPv6 payload length, next header; behind both.
        4 => {
            let places = [14, 16, 17, 18, 19, 20, 21, 22, 23, 34, 38, 39, 42, 46, 54, 55, 56, 58, 59, 66];
            let at = places[dice.below(places.len())];
            if let Some(byte) = frame.get_mut(at) {
                *byte = byte.wrapping_add([1, 0xff, 4, 0xfc, 8, 0xf8, 0x20][dice.below(7)]);
            }
        }
        5 => {
            let cut = dice.below(length);
            frame.truncate(cut);
            frame.extend(other.iter().skip(cut.min(dice.below(other.len().max(1)))));
        }
        6 => {
            let (from, to, size) = (dice.below(length), near(dice), dice.below(24));
            let piece: Vec<u8> = frame.iter().skip(from).take(size).copied().collect();
            for (place, byte) in frame.iter_mut().skip(to).zip(piece) {
                *place = byte;
            }
        }
        7 => {
            // A tag, or an extension header's worth of bytes, in the middle.
            let at = [12, 14, 34, 54][dice.below(4)].min(length);
            let tag =
                [[0x81, 0x00, 0x00, 0x64], [0x88, 0xa8, 0x0f, 0xff], [0x3c, 0x00, 0x01, 0x04]][dice.below(3)];
            frame.splice(at..at, tag);
        }
        _ => frame.extend((0..dice.below(64)).map(|_| dice.byte())),
    }
}

/// A small generator of numbers (xorshift64*): the same seed, the same frame.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.max(1);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() >> 33).unwrap_or(0) % bound.max(1)
    }

    fn byte(&mut self) -> u8 {
        self.roll().to_be_bytes()[0]
    }
}
