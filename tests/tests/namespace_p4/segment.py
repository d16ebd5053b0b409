"""TCP segments over IPv4, as frames."""
import struct


def total(data):
    """The Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    sum = 0
    for place in range(0, len(data), 2):
        sum += data[place] << 8 | data[place + 1]
    while sum >> 16:
        sum = (sum & 0xFFFF) + (sum >> 16)
    return ~sum & 0xFFFF


def covered(source, destination, tcp):
    """The checksum of a segment: 0 when it stands in it already and is right."""
    return total(source + destination + struct.pack("!HH", 6, len(tcp)) + tcp)


def frame(mac, source, destination, tcp):
    """A frame to this MAC, of a segment whose checksum is not there yet."""
    tcp = tcp[:16] + struct.pack("!H", covered(source, destination, tcp)) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0x4000, 64, 6, 0) + source + destination
    ip = ip[:10] + struct.pack("!H", total(ip)) + ip[12:]
    return bytes.fromhex(mac.replace(":", "")) + b"\x02\0\0\0\0\xc1\x08\0" + ip + tcp
