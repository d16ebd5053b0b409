//! The few ethtool requests that are needed, over the ioctl (`linux/ethtool.h`).

use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use super::Queues;

const GDRVINFO: u32 = 0x03;
const GSTRINGS: u32 = 0x1b;
const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
const GCHANNELS: u32 = 0x3c;
/// The set of strings that names the features.
const FEATURE_NAMES: u32 = 4;
/// Bytes of one string.
const STRING: usize = 32;

/// An interface, open for requests.
#[derive(Debug)]
pub(super) struct Ethtool {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

/// A feature that can be switched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Feature<'a> {
    /// The kernel's name.
    pub(super) name: &'a str,
    bit: usize,
}

impl Ethtool {
    /// Opens an interface of the calling thread's network namespace.
    pub(super) fn open(interface: &str) -> io::Result<Self> {
        let mut name = [0; libc::IFNAMSIZ];
        if interface.len() >= name.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "interface names have at most 15 bytes"));
        }
        for (place, byte) in name.iter_mut().zip(interface.bytes()) {
            *place = byte.cast_signed();
        }
        // SAFETY: plain system call; the descriptor is checked and owned by nobody else.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self { socket, name })
    }

    /// Name of the driver.
    pub(super) fn driver(&self) -> io::Result<String> {
        // struct ethtool_drvinfo: 196 bytes, the driver's name in the 32 after the command.
        let mut words = [0; 49];
        self.request(GDRVINFO, &mut words)?;
        Ok(text(&bytes(&words)[4..36]))
    }

    /// Queues in use.
    pub(super) fn queues(&self) -> io::Result<Queues> {
        // struct ethtool_channels: command, four maxima, then rx, tx, other, combined.
        let mut words = [0; 9];
        self.request(GCHANNELS, &mut words)?;
        Ok(Queues { receive: words[5] + words[8], transmit: words[6] + words[8] })
    }

    /// Those of the named features that are on; names the kernel does not know are off.
    pub(super) fn active<'a>(&self, names: &[&'a str]) -> io::Result<Vec<Feature<'a>>> {
        let known = self.feature_names()?;
        let blocks = known.len().div_ceil(32);
        // struct ethtool_gfeatures: command, size, blocks of available, requested, active, never changed.
        let mut words = vec![0; 2 + blocks * 4];
        words[1] = word(blocks);
        self.request(GFEATURES, &mut words)?;
        let is_active = |bit: usize| words[2 + bit / 32 * 4 + 2] >> (bit % 32) & 1 != 0;
        let find = |name: &&'a str| known.iter().position(|known| known == name);
        Ok(names
            .iter()
            .filter_map(|name| Some(Feature { name, bit: find(name)? }))
            .filter(|feature| is_active(feature.bit))
            .collect())
    }

    /// Asks for a feature to be switched off; whether that worked is to be seen in [`Self::active`].
    pub(super) fn switch_off(&self, feature: &Feature<'_>) -> io::Result<()> {
        let blocks = self.feature_count()?.div_ceil(32);
        // struct ethtool_sfeatures: command, size, blocks of valid, requested.
        let mut words = vec![0; 2 + blocks * 2];
        words[1] = word(blocks);
        words[2 + feature.bit / 32 * 2] = 1 << (feature.bit % 32);
        self.request(SFEATURES, &mut words)
    }

    fn feature_count(&self) -> io::Result<usize> {
        // struct ethtool_sset_info: command, reserved, mask of sets (64 bits), one count for each set.
        let mut words = [0; 5];
        words[2..4].copy_from_slice(&halves(1 << FEATURE_NAMES));
        self.request(GSSET_INFO, &mut words)?;
        Ok(words[4] as usize)
    }

    fn feature_names(&self) -> io::Result<Vec<String>> {
        let count = self.feature_count()?;
        // struct ethtool_gstrings: command, set, count, strings.
        let mut words = vec![0; 3 + count * STRING / 4];
        words[1] = FEATURE_NAMES;
        words[2] = word(count);
        self.request(GSTRINGS, &mut words)?;
        Ok(bytes(&words[3..]).chunks_exact(STRING).map(text).collect())
    }

    fn request(&self, command: u32, words: &mut [u32]) -> io::Result<()> {
        words[0] = command;
        // SAFETY: ifreq is plain data, for which all zeroes are valid.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name = self.name;
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        // SAFETY: the buffer outlives the call, and each caller sizes it for what its command writes: a
        // fixed structure, the size that it passes, or the count of strings that the kernel gave before.
        let result = unsafe {
            libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL as libc::Ioctl, &raw mut request)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Feature and string counts are small.
fn word(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// A 64-bit number as two words in memory order.
fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// A string that ends at the first zero.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}
