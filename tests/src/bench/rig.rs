//! The measuring rig: a veth pair in a network namespace of its own, and the testbed programs.

use super::frame::Link;
use super::template::Template;
use anyhow::{Context, Result, bail, ensure};
use aya::maps::{Array, MapData, ProgramArray};
use aya::programs::xdp::XdpMode;
use aya::programs::{ProgramFd, TestRun, TestRunAttrs, TestRunOptions, Xdp};
use aya::sys::{Stats, enable_stats};
use aya::{Ebpf, EbpfLoader};
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Frames in flight at once in live-frames mode.
const BATCH: u32 = 64;
/// The end that frames seem to come in on.
const NEAR: &str = "bench0";
/// The end that drops.
const FAR: &str = "bench1";

/// What one measurement found.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Nanoseconds in the program a packet, by the kernel's run-time statistics.
    pub program: f64,
    /// Nanoseconds a packet from end to end, sending included.
    pub whole: f64,
}

/// A verdict with the frame as the program left it.
#[derive(Debug)]
pub struct Verdict {
    /// `XDP_*`.
    pub action: u32,
    /// The frame.
    pub frame: Vec<u8>,
}

/// A veth pair in a namespace of this process's own, and the loaded testbed.
pub struct Rig {
    testbed: Ebpf,
    template: Array<MapData, Template>,
    under_test: ProgramArray<MapData>,
    link: Link,
    ifindex: u32,
    /// Where the next random sequence begins.
    seed: u64,
    _statistics: OwnedFd,
}

impl Rig {
    /// Moves this thread into a new network namespace and sets everything up there.
    ///
    /// The namespace goes away with the process, however it ends.
    pub fn new() -> Result<Self> {
        enter_namespace()?;
        ip(&["link", "add", NEAR, "type", "veth", "peer", "name", FAR])?;
        for end in [NEAR, FAR] {
            ip(&["link", "set", end, "up", "mtu", "1800"])?;
        }
        let mut testbed = load(&object("testbed")?)?;
        for name in ["restore", "floor_tx", "floor_drop", "pass", "reference_ipip", "reference_full"] {
            program(&mut testbed, name)?.load().with_context(|| format!("loading testbed program {name}"))?;
        }
        program(&mut testbed, "floor_drop")?.attach(FAR, XdpMode::Driver).context("attaching floor_drop")?;
        program(&mut testbed, "pass")?.attach(NEAR, XdpMode::Driver).context("attaching pass")?;
        let template = Array::try_from(testbed.take_map("TEMPLATE").context("testbed has no map TEMPLATE")?)?;
        let under_test =
            ProgramArray::try_from(testbed.take_map("UNDER_TEST").context("testbed has no map UNDER_TEST")?)?;
        let _statistics = enable_stats(Stats::RunTime)
            .context("switching on the kernel's run-time statistics (needs root)")?;
        Ok(Self {
            testbed,
            template,
            under_test,
            link: Link { destination: mac(NEAR)?, source: mac(FAR)? },
            ifindex: ifindex(NEAR)?,
            seed: 0x5eed,
            _statistics,
        })
    }

    /// MAC addresses of frames that come in.
    pub fn link(&self) -> Link {
        self.link
    }

    /// Interface that frames seem to come in on.
    pub fn ifindex(&self) -> u32 {
        self.ifindex
    }

    /// The testbed, to fill the maps of the reference programs.
    pub fn testbed(&mut self) -> &mut Ebpf {
        &mut self.testbed
    }

    /// A handle on a testbed program.
    pub fn testbed_program(&mut self, name: &str) -> Result<ProgramFd> {
        Ok(program(&mut self.testbed, name)?.fd()?.try_clone()?)
    }

    /// Runs `program` on `frames` live frames made from `template`.
    pub fn measure(&mut self, program: &ProgramFd, template: Template, frames: u32) -> Result<Sample> {
        let template = self.reseeded(template);
        self.aim(program, template)?;
        let restore: &Xdp = self.testbed.program("restore").context("restore is gone")?.try_into()?;
        let data = padded(&template);
        let before = restore.info()?;
        let started = Instant::now();
        restore
            .test_run(TestRunOptions {
                data_in: Some(&data),
                ctx_in: Some(&context(data.len(), self.ifindex)),
                repeat: frames,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            })
            .context("BPF_PROG_TEST_RUN with live frames")?;
        let took = started.elapsed();
        let after = restore.info()?;
        let runs = after.run_count() - before.run_count();
        ensure!(runs >= u64::from(frames), "the kernel counted {runs} runs of {frames}");
        Ok(Sample {
            program: nanoseconds(after.run_time() - before.run_time()) / runs as f64,
            whole: nanoseconds(took) / f64::from(frames),
        })
    }

    /// The same in plain repeat mode, by the kernel's own mean: the cross-check.
    pub fn measure_plain(&mut self, program: &ProgramFd, template: Template, runs: u32) -> Result<f64> {
        self.aim(program, template)?;
        let restore: &Xdp = self.testbed.program("restore").context("restore is gone")?.try_into()?;
        let data = padded(&template);
        let result = restore.test_run(TestRunOptions {
            data_in: Some(&data),
            ctx_in: Some(&context(data.len(), self.ifindex)),
            repeat: runs,
            ..TestRunOptions::new()
        })?;
        Ok(nanoseconds(result.duration))
    }

    /// Runs `program` once on `frame`.
    pub fn once(&self, program: &Xdp, frame: &[u8]) -> Result<Verdict> {
        let mut out = vec![0; 2_048];
        let result = program.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context(frame.len(), self.ifindex)),
            ..TestRunOptions::new()
        })?;
        out.truncate(result.data_size_out as usize);
        Ok(Verdict { action: result.return_value, frame: out })
    }

    /// The template with random flows other than last time's.
    fn reseeded(&mut self, mut template: Template) -> Template {
        self.seed = self.seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
        if template.random != 0 {
            template.state = self.seed;
        }
        template
    }

    fn aim(&mut self, program: &ProgramFd, template: Template) -> Result<()> {
        self.template.set(0, template, 0)?;
        self.under_test.set(0, program, 0).context("putting the program under test into UNDER_TEST")
    }
}

/// The finished object of that name below the target directory.
pub fn object(name: &str) -> Result<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the tests crate has no parent")?;
    let path = root.join("target/bpf").join(format!("{name}.bpf.o"));
    ensure!(path.is_file(), "{} is missing: run `cargo xtask build-ebpf` first", path.display());
    Ok(path)
}

/// A program of an object by name.
pub fn program<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program =
        object.program_mut(name).with_context(|| format!("the object has no program named {name}"))?;
    Ok(program.try_into()?)
}

fn load(path: &Path) -> Result<Ebpf> {
    EbpfLoader::new().load_file(path).with_context(|| format!("loading {}", path.display()))
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_nanos() as f64
}

/// The template's head, followed by zeros up to its length.
fn padded(template: &Template) -> Vec<u8> {
    let mut data = template.head.to_vec();
    data.resize(template.length as usize, 0);
    data
}

/// `struct xdp_md` for a frame of that length.
fn context(length: usize, ifindex: u32) -> [u8; 24] {
    let mut md = [0; 24];
    md[4..8].copy_from_slice(&(length as u32).to_ne_bytes());
    md[12..16].copy_from_slice(&ifindex.to_ne_bytes());
    md
}

fn enter_namespace() -> Result<()> {
    // SAFETY: no pointers; the other threads of the process stay where they are.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(std::io::Error::last_os_error())
            .context("making a network namespace; the benchmark needs root");
    }
    Ok(())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("running `ip` (package iproute2)")?;
    if !output.status.success() {
        bail!("`ip {}`: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn ifindex(name: &str) -> Result<u32> {
    let name = CString::new(name)?;
    // SAFETY: a terminated string.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(std::io::Error::last_os_error()).with_context(|| format!("interface {name:?}")),
        index => Ok(index),
    }
}

/// The interface's MAC, from `ip`, because /sys shows the namespace in which it was mounted.
fn mac(name: &str) -> Result<[u8; 6]> {
    let output = Command::new("ip").args(["-j", "link", "show", "dev", name]).output()?;
    let links: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let text = links[0]["address"].as_str().with_context(|| format!("{name} has no MAC"))?;
    let mut mac = [0; 6];
    for (byte, part) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(part, 16)?;
    }
    Ok(mac)
}
