//! A network namespace and a pin directory of one test's own.

use lb_control::dataplane::{
    DataPlane, Sizes,
    xdp::{AttachPolicy, Options, Schema, Xdp},
};
use std::{
    fs, io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

static NEXT: AtomicU32 = AtomicU32::new(0);
const BPFFS: &str = "/sys/fs/bpf";

/// The namespace goes with the test's thread, the pins with this value.
pub(crate) struct Sandbox {
    pub(crate) root: PathBuf,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        // SAFETY: no arguments.
        assert_eq!(
            unsafe { libc::geteuid() },
            0,
            "these tests load programs into the kernel: run them as root"
        );
        // SAFETY: moves this thread alone.
        let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        assert_eq!(moved, 0, "cannot make a network namespace: {}", io::Error::last_os_error());
        if !is_bpffs(Path::new(BPFFS)) {
            run(&format!("mount -t bpf bpf {BPFFS}"));
        }
        Self::beside()
    }

    /// Another pin directory in the namespace that this thread is in.
    pub(crate) fn beside() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = PathBuf::from(format!("{BPFFS}/t-dataplane-{}-{number}", std::process::id()));
        Self { root }
    }

    pub(crate) fn options(&self) -> Options {
        Options { root: self.root.clone(), attach: AttachPolicy::Any, schemas: Schema::KNOWN }
    }

    pub(crate) fn open(&self, sizes: Sizes) -> Xdp {
        Xdp::open(self.options(), sizes).expect("the data plane opens").0
    }

    /// A pair of veth interfaces, both up.
    pub(crate) fn veth(&self, name: &str, peer: &str) {
        run(&format!(
            "ip link add {name} numtxqueues 2 numrxqueues 2 type veth peer name {peer} numtxqueues 2 numrxqueues 2"
        ));
        for name in [name, peer] {
            // Without its own neighbour discovery, only the test's packets are on the wire.
            fs::write(format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6"), "1").ok();
            run(&format!("ip link set {name} up"));
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let options = Options { root: self.root.clone(), ..Options::default() };
        Xdp::remove(&options).expect("the pins can be removed");
    }
}

pub(crate) const SIZES: Sizes = Sizes { bindings: 4_096, flows: 1_024, arena: 256, holds: 64 };

pub(crate) fn run(command: &str) {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a program");
    let output = Command::new(program).args(words).output().expect("the program starts");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn output(command: &str) -> String {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().expect("a program")).args(words).output().expect("it starts");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Every binding.
pub(crate) fn bindings(plane: &mut dyn DataPlane) -> Vec<(u32, u64, u64)> {
    let (mut found, mut cursor) = (Vec::new(), None);
    loop {
        let page = plane.bindings(cursor, 1_000).expect("bindings can be listed");
        found.extend(page.rows.iter().map(|(key, binding)| (key.service, key.session, binding.word)));
        cursor = page.next;
        if cursor.is_none() {
            found.sort_unstable();
            return found;
        }
    }
}

fn is_bpffs(path: &Path) -> bool {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let path = std::ffi::CString::new(path.to_string_lossy().as_bytes()).expect("no NUL");
    // SAFETY: zero is a valid statfs.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: both outlive the call.
    unsafe { libc::statfs(path.as_ptr(), &raw mut stat) == 0 && stat.f_type == BPF_FS_MAGIC }
}

/// A socket that sends and receives frames on an interface.
pub(crate) struct Wire(OwnedFd);

impl Wire {
    pub(crate) fn new(interface: &str) -> Self {
        let protocol = i32::from((libc::ETH_P_IP as u16).to_be());
        // SAFETY: plain arguments; the descriptor is owned at once.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, protocol);
            assert!(fd >= 0, "{}", io::Error::last_os_error());
            OwnedFd::from_raw_fd(fd)
        };
        // SAFETY: zero is a valid address, filled in below.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol as u16;
        address.sll_ifindex = ifindex(interface) as i32;
        let timeout = libc::timeval { tv_sec: 3, tv_usec: 0 };
        // SAFETY: pointers and lengths belong together.
        unsafe {
            let length = size_of_val(&address) as u32;
            assert_eq!(libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length), 0);
            let length = size_of_val(&timeout) as u32;
            let option = (&raw const timeout).cast();
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, option, length);
        }
        Self(socket)
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        // SAFETY: pointer and length belong together.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        assert_eq!(sent, frame.len() as isize, "{}", io::Error::last_os_error());
    }

    /// The next frame; `None` when none comes within three seconds.
    pub(crate) fn receive(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 2_048];
        // SAFETY: pointer and length belong together.
        let length = unsafe { libc::recv(self.0.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        frame.truncate(usize::try_from(length).ok()?);
        Some(frame)
    }
}

pub(crate) fn ifindex(interface: &str) -> u32 {
    let name = std::ffi::CString::new(interface).expect("no NUL");
    // SAFETY: the name outlives the call.
    unsafe { libc::if_nametoindex(name.as_ptr()) }
}

pub(crate) fn mac(interface: &str) -> [u8; 6] {
    let text = output(&format!("ip -br link show {interface}"));
    let text = text.split_whitespace().nth(2).expect("an address");
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).expect("hex")).collect();
    bytes.try_into().expect("six bytes")
}

/// An ICMP echo request to 10.99.0.1 with that sequence number.
pub(crate) fn echo(to: [u8; 6], sequence: u16) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(to);
    frame.extend([2, 0, 0, 0, 0, 9]);
    frame.extend([0x08, 0x00]);
    let mut ip = vec![0x45, 0, 0, 84, 0, 0, 0, 0, 64, 1, 0, 0, 10, 1, 0, 9, 10, 99, 0, 1];
    let checksum = sum(&ip).to_be_bytes();
    ip[10..12].copy_from_slice(&checksum);
    frame.extend(&ip);
    let mut icmp = vec![8, 0, 0, 0, 0x12, 0x34];
    icmp.extend(sequence.to_be_bytes());
    icmp.extend([0xa5; 56]);
    let checksum = sum(&icmp).to_be_bytes();
    icmp[2..4].copy_from_slice(&checksum);
    frame.extend(&icmp);
    frame
}

/// Sequence number of an echo reply.
pub(crate) fn reply(frame: &[u8]) -> Option<u16> {
    let is_reply = frame.len() >= 42 && frame[23] == 1 && frame[34] == 0;
    is_reply.then(|| u16::from_be_bytes([frame[40], frame[41]]))
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
