//! TCP segments in frames.

use std::net::{IpAddr, SocketAddr};

pub(super) const FIN: u8 = 1;
pub(super) const SYN: u8 = 2;
pub(super) const RST: u8 = 4;
pub(super) const PSH: u8 = 8;
pub(super) const ACK: u8 = 16;

/// One segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) source: SocketAddr,
    pub(super) destination: SocketAddr,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
    pub(super) window: u16,
    pub(super) mss: Option<u16>,
    pub(super) scale: Option<u8>,
    pub(super) sack_permitted: bool,
    pub(super) sacks: Vec<(u32, u32)>,
    pub(super) data: Vec<u8>,
}

/// What is around the IP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Wire {
    pub(super) source: [u8; 6],
    pub(super) destination: [u8; 6],
    /// Priority and VLAN id.
    pub(super) tag: Option<u16>,
}

impl Segment {
    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence numbers it takes up.
    pub(super) fn length(&self) -> u32 {
        let data = u32::try_from(self.data.len()).unwrap_or(0);
        data + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }

    /// The frame.
    pub(super) fn frame(&self, wire: &Wire) -> Vec<u8> {
        let tcp = self.tcp();
        let mut frame = [wire.destination, wire.source].concat();
        if let Some(tag) = wire.tag {
            frame.extend([0x81, 0x00]);
            frame.extend(tag.to_be_bytes());
        }
        let length = u16::try_from(tcp.len()).unwrap_or(0);
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let total = (length + 20).to_be_bytes();
                let mut header = vec![0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, 6, 0, 0];
                header.extend(source.octets());
                header.extend(destination.octets());
                let sum = checksum(&header).to_be_bytes();
                header[10..12].copy_from_slice(&sum);
                frame.extend([0x08, 0x00]);
                frame.extend(header);
            }
            (source, destination) => {
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(length.to_be_bytes());
                frame.extend([6, 64]);
                frame.extend(octets(source));
                frame.extend(octets(destination));
            }
        }
        frame.extend(tcp);
        frame
    }

    fn tcp(&self) -> Vec<u8> {
        let mut options = Vec::new();
        if let Some(mss) = self.mss {
            options.extend([2, 4]);
            options.extend(mss.to_be_bytes());
        }
        if self.sack_permitted {
            options.extend([4, 2]);
        }
        if let Some(scale) = self.scale {
            options.extend([3, 3, scale]);
        }
        if !self.sacks.is_empty() {
            options.extend([1, 1, 5, u8::try_from(2 + self.sacks.len() * 8).unwrap_or(2)]);
            for (left, right) in &self.sacks {
                options.extend(left.to_be_bytes());
                options.extend(right.to_be_bytes());
            }
        }
        while options.len() % 4 != 0 {
            options.push(1);
        }
        let mut tcp = Vec::new();
        tcp.extend(self.source.port().to_be_bytes());
        tcp.extend(self.destination.port().to_be_bytes());
        tcp.extend(self.seq.to_be_bytes());
        tcp.extend(self.ack.to_be_bytes());
        tcp.push(u8::try_from((20 + options.len()) / 4 * 16).unwrap_or(0x50));
        tcp.push(self.flags);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0; 4]);
        tcp.extend(options);
        tcp.extend(&self.data);
        let mut pseudo = [octets(self.source.ip()), octets(self.destination.ip())].concat();
        pseudo.extend([0, 6]);
        pseudo.extend(u16::try_from(tcp.len()).unwrap_or(0).to_be_bytes());
        pseudo.extend(&tcp);
        let sum = checksum(&pseudo).to_be_bytes();
        tcp[16..18].copy_from_slice(&sum);
        tcp
    }

    /// The segment in a frame without IP options and extension headers; checksums are checked elsewhere.
    pub(super) fn of(frame: &[u8]) -> Option<(Self, Wire)> {
        let mac = |at: usize| -> Option<[u8; 6]> { frame.get(at..at + 6)?.try_into().ok() };
        let (mut at, mut tag) = (12, None);
        if word(frame, at)? == 0x8100 {
            tag = Some(word(frame, at + 2)?);
            at += 4;
        }
        let wire = Wire { source: mac(6)?, destination: mac(0)?, tag };
        let ip = frame.get(at + 2..)?;
        let (source, destination, tcp): (IpAddr, IpAddr, &[u8]) = match word(frame, at)? {
            0x0800 if ip.first()? == &0x45 && ip.get(9)? == &6 => {
                let end = usize::from(word(ip, 2)?);
                let address = |at: usize| -> Option<[u8; 4]> { ip.get(at..at + 4)?.try_into().ok() };
                (address(12)?.into(), address(16)?.into(), ip.get(20..end)?)
            }
            0x86dd if ip.get(6)? == &6 => {
                let end = 40 + usize::from(word(ip, 4)?);
                let address = |at: usize| -> Option<[u8; 16]> { ip.get(at..at + 16)?.try_into().ok() };
                (address(8)?.into(), address(24)?.into(), ip.get(40..end)?)
            }
            _ => return None,
        };
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        let mut segment = Self {
            source: (source, word(tcp, 0)?).into(),
            destination: (destination, word(tcp, 2)?).into(),
            seq: long(tcp, 4)?,
            ack: long(tcp, 8)?,
            flags: *tcp.get(13)?,
            window: word(tcp, 14)?,
            mss: None,
            scale: None,
            sack_permitted: false,
            sacks: Vec::new(),
            data: tcp.get(header..)?.to_vec(),
        };
        segment.read_options(tcp.get(20..header)?)?;
        Some((segment, wire))
    }

    fn read_options(&mut self, mut options: &[u8]) -> Option<()> {
        while let Some(kind) = options.first() {
            let length = match kind {
                0 => break,
                1 => 1,
                _ => usize::from(*options.get(1)?),
            };
            let body = options.get(2..length).unwrap_or(&[]);
            match kind {
                2 => self.mss = word(body, 0),
                3 => self.scale = body.first().copied(),
                4 => self.sack_permitted = true,
                5 => {
                    self.sacks = body.chunks(8).filter_map(|b| Some((long(b, 0)?, long(b, 4)?))).collect();
                }
                _ => {}
            }
            options = options.get(length.max(1)..)?;
        }
        Some(())
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}
