//! Configuration files of balancers under test.

use std::net::IpAddr;

/// The node's part of a configuration; everything not given is the product's default.
#[derive(Clone, Debug, Default)]
pub struct NodeConfig {
    /// Interfaces.
    pub interfaces: Vec<String>,
    /// Lines for the `[node]` table.
    pub node: String,
    /// Lines for the `[node.timeouts]` table.
    pub timeouts: String,
    /// Lines for the `[node.limits]` table.
    pub limits: String,
}

/// A service.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// Its name.
    pub name: String,
    /// Its VIP.
    pub address: IpAddr,
    /// Its port; 0 = any.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// `nat`, `l2`, `ipip` or `gue`.
    pub mode: &'static str,
    /// Further lines; without a word of `health` among them its backends are not checked.
    pub lines: String,
    /// Its backends.
    pub backends: Vec<BackendConfig>,
}

/// A backend.
#[derive(Clone, Debug)]
pub struct BackendConfig {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Further lines.
    pub lines: String,
}

/// The whole file.
pub fn text(node: &NodeConfig, services: &[ServiceConfig]) -> String {
    let mut text = String::from("[node]\n");
    let interfaces: Vec<String> = node.interfaces.iter().map(|name| format!("{name:?}")).collect();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    line(&format!("interfaces = [{}]", interfaces.join(", ")));
    line(&node.node);
    if !node.timeouts.is_empty() {
        line("[node.timeouts]");
        line(&node.timeouts);
    }
    if !node.limits.is_empty() {
        line("[node.limits]");
        line(&node.limits);
    }
    for service in services {
        service.write(&mut text);
    }
    text
}

impl ServiceConfig {
    /// The same with further lines.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        self.lines.push_str(lines);
        self.lines.push('\n');
        self
    }

    fn write(&self, text: &mut String) {
        let Self { name, address, port, protocol, mode, lines, backends } = self;
        // Most tests break backends to see what the data plane does by itself.
        let health = if lines.contains("health") { "" } else { "health = \"none\"\n" };
        let port = if *port == 0 { "\"any\"".to_owned() } else { port.to_string() };
        let header = format!(
            "\n[[service]]\nname = \"{name}\"\naddress = \"{address}\"\nport = {port}\n\
             protocol = \"{protocol}\"\nmode = \"{mode}\"\n{health}{lines}\n"
        );
        text.push_str(&header);
        for BackendConfig { name, address, lines } in backends {
            let backend =
                format!("\n[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\n{lines}\n");
            text.push_str(&backend);
        }
    }
}
