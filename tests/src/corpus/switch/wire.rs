//! The other ends of the switch's ports.

use crate::corpus::OwnNamespace;
use crate::corpus::tables::DEVICES;
use anyhow::{Context, Result, ensure};
use std::io;
use std::mem::{self, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// What is sent behind each frame, on the same port: when it has come through, the frame has been looked at.
const MARK: [u8; 14] = [2, 0, 0, 0, 1, 0x11, 2, 0, 0, 0, 0, 0xc1, 0x88, 0xb5];

/// A frame and the port it came out of.
pub(super) type Seen = (u32, Vec<u8>);

/// The far end of one port.
pub(super) struct Wire {
    port: u32,
    socket: OwnedFd,
}

/// All of them.
pub(super) struct Wires {
    wires: Vec<Wire>,
    cpu: u32,
    marks: u16,
    _namespace: OwnNamespace,
}

impl Wires {
    /// Of the corpus's interfaces, and of one more.
    pub(super) fn of(namespace: OwnNamespace, cpu: u32) -> Result<Self> {
        OwnNamespace::add(cpu, 1_500)?;
        OwnNamespace::set("lo", &["up"])?;
        // What routes of the switch send from is the corpus's balancer.
        for index in DEVICES {
            OwnNamespace::set(
                &OwnNamespace::interface(index),
                &["address", &format!("02:00:00:00:01:{index}")],
            )?;
        }
        let ports = DEVICES.into_iter().chain([cpu]);
        let wires = ports.map(Wire::open).collect::<Result<_>>()?;
        Ok(Self { wires, cpu, marks: 0, _namespace: namespace })
    }

    /// Drops what has come out so far.
    pub(super) fn forget(&mut self) -> Result<()> {
        self.seen().map(drop)
    }

    /// Sends a frame, and waits until the switch has looked at it; gives back what came out.
    pub(super) fn send(&mut self, port: u32, frame: &[u8], patience: Duration) -> Result<Vec<Seen>> {
        let wire = self.wires.iter().find(|wire| wire.port == port).context("a port of the corpus")?;
        wire.send(frame)?;
        self.marks = self.marks.wrapping_add(1);
        let mut mark = MARK.to_vec();
        mark.extend(self.marks.to_be_bytes());
        mark.resize(60, 0);
        wire.send(&mark)?;
        let (begun, mut seen) = (Instant::now(), Vec::new());
        loop {
            seen.extend(self.seen()?);
            if let Some(place) = seen.iter().position(|(port, frame)| *port == self.cpu && *frame == mark) {
                seen.remove(place);
                return Ok(seen);
            }
            ensure!(begun.elapsed() < patience, "the switch does not let a frame through to its CPU port");
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// Waits until something comes out.
    pub(super) fn wait(&mut self, patience: Duration) -> Result<Vec<Seen>> {
        let begun = Instant::now();
        loop {
            let seen = self.seen()?;
            if !seen.is_empty() || begun.elapsed() >= patience {
                return Ok(seen);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    fn seen(&self) -> Result<Vec<Seen>> {
        let mut seen = Vec::new();
        for wire in &self.wires {
            while let Some(frame) = wire.receive()? {
                seen.push((wire.port, frame));
            }
        }
        Ok(seen)
    }
}

impl Wire {
    /// Longest frame that it takes.
    pub(super) const LONGEST: usize = 1_514;

    fn open(port: u32) -> Result<Self> {
        // SAFETY: no pointers.
        let socket = unsafe {
            libc::socket(
                libc::AF_PACKET,
                libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                i32::from((libc::ETH_P_ALL as u16).to_be()),
            )
        };
        ensure!(socket >= 0, "a packet socket: {}", io::Error::last_os_error());
        // SAFETY: just opened, and nobody else's.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let name = std::ffi::CString::new(OwnNamespace::peer(port))?;
        // SAFETY: a string that ends with a zero byte.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        ensure!(index != 0, "no interface {name:?}");
        // SAFETY: integers and arrays, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index.cast_signed();
        let on = 1_i32;
        // SAFETY: the socket is open, and the lengths are those of what is pointed to.
        let done = unsafe {
            libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as u32)
                | libc::setsockopt(
                    socket.as_raw_fd(),
                    libc::SOL_PACKET,
                    libc::PACKET_AUXDATA,
                    (&raw const on).cast(),
                    size_of::<i32>() as u32,
                )
        };
        ensure!(done == 0, "binding to {name:?}: {}", io::Error::last_os_error());
        Ok(Self { port, socket })
    }

    fn send(&self, frame: &[u8]) -> Result<()> {
        // SAFETY: as many bytes as the slice has.
        let sent = unsafe { libc::send(self.socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        ensure!(
            usize::try_from(sent) == Ok(frame.len()),
            "sending {} bytes: {}",
            frame.len(),
            io::Error::last_os_error()
        );
        Ok(())
    }

    /// The next frame that came out of the port.
    fn receive(&self) -> Result<Option<Vec<u8>>> {
        loop {
            let (mut frame, mut control) = (vec![0_u8; 4_096], [0_u64; 16]);
            // SAFETY: integers and arrays, for which zero is a value.
            let mut from: libc::sockaddr_ll = unsafe { mem::zeroed() };
            let mut part = libc::iovec { iov_base: frame.as_mut_ptr().cast(), iov_len: frame.len() };
            // SAFETY: as above.
            let mut message: libc::msghdr = unsafe { mem::zeroed() };
            message.msg_name = (&raw mut from).cast();
            message.msg_namelen = size_of::<libc::sockaddr_ll>() as u32;
            (message.msg_iov, message.msg_iovlen) = (&raw mut part, 1);
            (message.msg_control, message.msg_controllen) =
                (control.as_mut_ptr().cast(), size_of_val(&control));
            // SAFETY: all that the message points to is there, with the lengths it says.
            let length = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, 0) };
            let Ok(length) = usize::try_from(length) else {
                let error = io::Error::last_os_error();
                if error.kind() == io::ErrorKind::WouldBlock {
                    return Ok(None);
                }
                return Err(error).context("receiving");
            };
            if from.sll_pkttype == libc::PACKET_OUTGOING {
                continue;
            }
            frame.truncate(length);
            if let Some(tag) = tag(&message) {
                frame.splice(12..12, tag);
            }
            return Ok(Some(frame));
        }
    }
}

/// The VLAN tag that the kernel took out of the frame.
fn tag(message: &libc::msghdr) -> Option<[u8; 4]> {
    // SAFETY: the kernel has filled the message.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(message) };
    // SAFETY: null or a header in the control buffer, which CMSG_NXTHDR checks.
    while let Some(found) = unsafe { header.as_ref() } {
        if (found.cmsg_level, found.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA) {
            // SAFETY: the kernel puts this structure behind such a header.
            let data: libc::tpacket_auxdata =
                unsafe { libc::CMSG_DATA(found).cast::<libc::tpacket_auxdata>().read_unaligned() };
            if data.tp_status & libc::TP_STATUS_VLAN_VALID == 0 {
                return None;
            }
            let (kind, tag) = (data.tp_vlan_tpid.to_be_bytes(), data.tp_vlan_tci.to_be_bytes());
            return Some([kind[0], kind[1], tag[0], tag[1]]);
        }
        // SAFETY: as above.
        header = unsafe { libc::CMSG_NXTHDR(message, header) };
    }
    None
}
