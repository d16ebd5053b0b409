//! Runs programs and shows how far they are: one moving line on a terminal, plain lines elsewhere.

use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

/// Prints one line about what happens now, to standard error.
pub(crate) fn say(line: &str) {
    eprintln!("{} {line}", console::style("==>").for_stderr().green().bold());
}

/// A moving line for a step that is not a program of its own.
pub(crate) struct Step {
    bar: Option<ProgressBar>,
    label: String,
    started: Instant,
}

impl Step {
    /// Begins a step; elsewhere than on a terminal the label is printed at once.
    pub(crate) fn begin(label: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner:.green} {prefix} {wide_msg:.dim}")
                .expect("the template is constant and right");
            let bar = ProgressBar::new_spinner().with_style(style).with_prefix(label.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            say(label);
        }
        Self { bar, label: label.to_owned(), started: Instant::now() }
    }

    /// Shows the newest detail behind the label.
    pub(crate) fn detail(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(console::strip_ansi_codes(detail.trim()).into_owned());
        }
    }

    /// Ends the step and leaves one line about it.
    pub(crate) fn done(self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            say(&format!("{} ({:.1} s)", self.label, self.started.elapsed().as_secs_f64()));
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Runs a program whose output only matters when it fails: then all of it is shown.
pub(crate) fn quietly(label: &str, command: &mut Command) -> Result<()> {
    let step = Step::begin(label);
    let name = shown(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{name}`"))?;
    let (sender, lines) = mpsc::channel();
    let pipes: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|p| Box::new(p) as _), child.stderr.take().map(|p| Box::new(p) as _)];
    for pipe in pipes.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut output = Vec::new();
    for line in lines {
        step.detail(&line);
        output.push(line);
    }
    let status = child.wait().with_context(|| format!("cannot wait for `{name}`"))?;
    if !status.success() {
        drop(step);
        eprintln!("{}", output.join("\n"));
        bail!("`{name}` failed ({status}); its output is above");
    }
    step.done();
    Ok(())
}

/// Runs a program that talks to the person at the terminal itself.
pub(crate) fn openly(command: &mut Command) -> Result<()> {
    let name = shown(command);
    let status = command.status().with_context(|| format!("cannot start `{name}`"))?;
    if !status.success() {
        bail!("`{name}` failed ({status})");
    }
    Ok(())
}

/// Runs a program for its output.
pub(crate) fn read(command: &mut Command) -> Result<String> {
    let name = shown(command);
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("cannot start `{name}`"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{name}` failed ({}): {}", output.status, said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command the way one would type it, shortened.
pub(crate) fn shown(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        text.push(' ');
        text.push_str(&argument.to_string_lossy());
    }
    if text.chars().count() > 120 {
        text = text.chars().take(117).chain("...".chars()).collect();
    }
    text
}
