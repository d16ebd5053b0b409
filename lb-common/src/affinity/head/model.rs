//! What reading a head means, written for reading, not for speed; on the host, for tests and fuzzing.

/// What a head says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Read {
    /// Its length.
    pub end: usize,
    /// The request's method.
    pub method: Vec<u8>,
    /// The request's path with its query.
    pub path: Vec<u8>,
    /// The cookie's value, empty when there is none.
    pub value: Vec<u8>,
    /// Whether the cookie came with different values.
    pub several: bool,
}

/// Why a head cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unread {
    /// More bytes are needed.
    More,
    /// It is no HTTP/1 head, whatever follows.
    NotHttp,
}

/// Reads a request head at the start of `bytes`.
pub fn request(bytes: &[u8], name: &[u8]) -> Result<Read, Unread> {
    let empty = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    let mut rest = &bytes[empty..];
    let method = until(&mut rest, |b| !token(b))?;
    if next(&mut rest)? != b' ' || method.is_empty() || method == b"PRI" {
        return Err(Unread::NotHttp);
    }
    let target = until(&mut rest, |b| b <= b' ');
    if matches!(&target, Ok([])) {
        return Err(Unread::NotHttp);
    }
    let target = target?;
    if next(&mut rest)? != b' ' {
        return Err(Unread::NotHttp);
    }
    version(&mut rest)?;
    match next(&mut rest)? {
        b'\n' => {}
        b'\r' if next(&mut rest)? == b'\n' => {}
        _ => return Err(Unread::NotHttp),
    }
    let mut read = Read { method: method.into(), path: path(target).into(), ..Read::default() };
    for field in fields(&mut rest)? {
        let Some(cookies) = named(&field, b"cookie:") else { continue };
        for pair in cookies.split(|b| *b == b';') {
            match value(pair, name) {
                None | Some([]) => {}
                Some(value) if read.value.is_empty() => read.value = value.into(),
                Some(value) => read.several |= value != read.value,
            }
        }
    }
    read.end = bytes.len() - rest.len();
    Ok(read)
}

/// Reads a response head, with interim ones before it.
pub fn response(bytes: &[u8], name: &[u8]) -> Result<Read, Unread> {
    let mut read = Read::default();
    let mut rest = bytes;
    loop {
        version(&mut rest)?;
        if next(&mut rest)? != b' ' {
            return Err(Unread::NotHttp);
        }
        let mut status = [0; 3];
        for digit in &mut status {
            *digit = next(&mut rest)?;
            if !digit.is_ascii_digit() {
                return Err(Unread::NotHttp);
            }
        }
        until(&mut rest, |b| b == b'\n')?;
        next(&mut rest)?;
        for field in fields(&mut rest)? {
            let Some(cookie) = named(&field, b"set-cookie:") else { continue };
            let pair = cookie.split(|b| *b == b';').next().unwrap_or(&[]);
            if let Some(value) = value(pair, name) {
                read.value = value.into();
            }
        }
        if status[0] != b'1' || &status == b"101" {
            read.end = bytes.len() - rest.len();
            return Ok(read);
        }
    }
}

fn token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The bytes before the first one that `stops`, which has to be there.
fn until<'a>(rest: &mut &'a [u8], stops: impl Fn(u8) -> bool) -> Result<&'a [u8], Unread> {
    let len = rest.iter().position(|b| stops(*b)).ok_or(Unread::More)?;
    let (taken, left) = rest.split_at(len);
    *rest = left;
    Ok(taken)
}

fn next(rest: &mut &[u8]) -> Result<u8, Unread> {
    let (first, left) = rest.split_first().ok_or(Unread::More)?;
    *rest = left;
    Ok(*first)
}

fn version(rest: &mut &[u8]) -> Result<(), Unread> {
    for expected in b"HTTP/1." {
        if next(rest)? != *expected {
            return Err(Unread::NotHttp);
        }
    }
    if next(rest)?.is_ascii_digit() { Ok(()) } else { Err(Unread::NotHttp) }
}

/// The path of a target: of an absolute one what follows the authority.
fn path(target: &[u8]) -> &[u8] {
    if target.starts_with(b"/") {
        return target;
    }
    let before_query = target.iter().position(|b| matches!(b, b'?' | b'#')).unwrap_or(target.len());
    let slashes: Vec<usize> = (0..before_query).filter(|i| target[*i] == b'/').collect();
    match slashes[..] {
        [one, two, three, ..] if two == one + 1 && target[one - 1] == b':' => &target[three..],
        _ => &[],
    }
}

/// The fields up to and with the empty line; lines that go on are joined by LF.
fn fields(rest: &mut &[u8]) -> Result<Vec<Vec<u8>>, Unread> {
    let mut fields: Vec<Vec<u8>> = Vec::new();
    loop {
        let line = until(rest, |b| b == b'\n')?;
        next(rest)?;
        match (line, fields.last_mut()) {
            ([] | b"\r", _) => return Ok(fields),
            ([b' ' | b'\t', more @ ..], Some(field)) => {
                field.push(b'\n');
                field.extend(more);
            }
            // A first line that goes on with nothing is no field: its name is empty.
            _ => fields.push(line.into()),
        }
    }
}

/// The value of a field of that name.
fn named<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (start, value) = field.split_at_checked(name.len())?;
    start.eq_ignore_ascii_case(name).then_some(value)
}

/// The value of a pair of that name.
fn value<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut pair = trim_start(pair, b" \t\r\n").strip_prefix(name)?;
    pair = trim_start(pair, b" \t").strip_prefix(b"=")?;
    let mut value = trim_start(pair, b" \t").split(|b| *b == b'\n').next()?;
    while let [start @ .., b' ' | b'\t' | b'\r'] = value {
        value = start;
    }
    if let [b'"', inner @ .., b'"'] = value {
        value = inner;
    }
    Some(value)
}

fn trim_start<'a>(mut text: &'a [u8], of: &[u8]) -> &'a [u8] {
    while let [first, rest @ ..] = text
        && of.contains(first)
    {
        text = rest;
    }
    text
}
