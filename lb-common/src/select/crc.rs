//! CRC-32 of a session key and a probe number.

/// Reflected polynomial of IEEE 802.3.
const POLYNOMIAL: u32 = 0xedb8_8320;

/// `TABLES[k][b]`: CRC of byte `b` followed by `k` zero bytes ("slicing by eight").
static TABLES: [[u32; 256]; 8] = tables();

const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut k = 1;
    while k < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = tables[k - 1][byte];
            tables[k][byte] = (before >> 8) ^ tables[0][(before & 0xff) as usize];
            byte += 1;
        }
        k += 1;
    }
    tables
}

/// The probes of one session key.
#[derive(Clone, Copy, Debug)]
pub struct Probes {
    /// CRC register after the key.
    register: u32,
}

impl Probes {
    /// Hashes the key once; each probe then costs one table look-up.
    #[inline(always)]
    pub fn new(session: u64) -> Self {
        // Big-endian bytes, first byte first, meet the register 0xffff_ffff in its low byte.
        let low = u64::from_le_bytes(session.to_be_bytes()) as u32 ^ u32::MAX;
        let high = (u64::from_le_bytes(session.to_be_bytes()) >> 32) as u32;
        let register = entry(7, low)
            ^ entry(6, low >> 8)
            ^ entry(5, low >> 16)
            ^ entry(4, low >> 24)
            ^ entry(3, high)
            ^ entry(2, high >> 8)
            ^ entry(1, high >> 16)
            ^ entry(0, high >> 24);
        Self { register }
    }

    /// `CRC-32(key, i)` for `i` below 256.
    #[inline(always)]
    pub fn value(&self, i: u32) -> u32 {
        (entry(0, self.register ^ i) ^ (self.register >> 8)) ^ u32::MAX
    }
}

#[inline(always)]
fn entry(k: usize, byte: u32) -> u32 {
    // SAFETY: both indexes are below the lengths; a bounds check would leave a panic in the BPF object.
    unsafe { *TABLES.get_unchecked(k & 7).get_unchecked((byte & 0xff) as usize) }
}

#[cfg(test)]
mod tests {
    use super::Probes;

    /// Bit by bit, from the definition.
    fn reference(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ super::POLYNOMIAL } else { crc >> 1 };
            }
        }
        !crc
    }

    #[test]
    fn reference_meets_the_check_value_of_the_catalogue() {
        assert_eq!(reference(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn probes_are_the_crc_of_key_and_number() {
        let mut key = 0x0123_4567_89ab_cdef_u64;
        for round in 0..1000_u64 {
            key = key.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(round);
            for i in [0_u8, 1, 7, 15, 16, 255] {
                let mut bytes = key.to_be_bytes().to_vec();
                bytes.push(i);
                assert_eq!(Probes::new(key).value(u32::from(i)), reference(&bytes));
            }
        }
    }
}
