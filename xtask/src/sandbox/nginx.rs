//! The backends' web servers: real nginx, one in each namespace.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::netns;
use super::topology::BACKENDS;
use crate::progress::read;

/// Files that every backend serves, and their sizes in bytes.
const FILES: [(&str, u64); 2] = [("1m", 1 << 20), ("100m", 100 << 20)];

/// Starts the servers; they are ready when this returns.
pub(super) fn start(directory: &Path) -> Result<()> {
    files(&directory.join("www"))?;
    for name in BACKENDS {
        let home = directory.join(name);
        fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let file = home.join("nginx.conf");
        fs::write(&file, configuration(name, directory))
            .with_context(|| format!("cannot write {}", file.display()))?;
        let log = home.join("error.log");
        let mut nginx = netns::command(&format!("sb-{name}"), "nginx");
        // Goes to the background once its sockets listen.
        nginx.arg("-e").arg(&log).arg("-p").arg(&home).arg("-c").arg(&file);
        read(&mut nginx)
            .with_context(|| format!("nginx of {name} does not start; its log: {}", log.display()))?;
    }
    Ok(())
}

/// Writes the files to download: every 8 bytes hold their own place, so a lost or moved piece is noticed.
fn files(www: &Path) -> Result<()> {
    fs::create_dir_all(www).with_context(|| format!("cannot make {}", www.display()))?;
    for (name, size) in FILES {
        let path: PathBuf = www.join(name);
        let write = || -> std::io::Result<()> {
            let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
            for place in 0..size / 8 {
                // Spread over all bytes: files of small numbers are mostly zeroes.
                file.write_all(&place.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())?;
            }
            file.flush()
        };
        write().with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

fn configuration(name: &str, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r#"# Made by `cargo xtask sandbox up`.
load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
user www-data;
worker_processes 1;
pid {directory}/{name}/nginx.pid;
error_log {directory}/{name}/error.log warn;
events {{
    worker_connections 1000;
}}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 100000000;
    keepalive_timeout 3600;
    client_max_body_size 0;
    client_body_temp_path {directory}/{name}/body;
    proxy_temp_path {directory}/{name}/proxy;
    fastcgi_temp_path {directory}/{name}/fastcgi;
    uwsgi_temp_path {directory}/{name}/uwsgi;
    scgi_temp_path {directory}/{name}/scgi;
    reset_timedout_connection on;
    lua_shared_dict numbers 64k;

    server {{
        listen 80 default_server backlog=65536 reuseport;
        listen [::]:80 default_server backlog=65536 reuseport;
        listen 8080 default_server backlog=65536 reuseport;
        listen [::]:8080 default_server backlog=65536 reuseport;
        listen 8081 default_server backlog=65536 reuseport;
        listen [::]:8081 default_server backlog=65536 reuseport;
        root {directory}/www;

        location = / {{
            content_by_lua_block {{ ngx.say("{name}") }}
        }}

        # Who answers, whom it sees, and the how manyth request it is to this backend.
        location = /whoami {{
            default_type application/json;
            content_by_lua_block {{
                local number = ngx.shared.numbers:incr("requests", 1, 0)
                local body = ('{{"backend":"{name}","client":"%s","request":%d}}\n'):format(ngx.var.remote_addr, number)
                ngx.header.content_length = #body
                ngx.print(body)
            }}
        }}

        # Begins a session, as application servers do: on port 8080 any value, on 8081 one that names the backend.
        location = /login {{
            default_type application/json;
            content_by_lua_block {{
                local cookie = "SESS=" .. ngx.var.request_id
                if ngx.var.server_port == "8081" then
                    cookie = "JSESSIONID=" .. ngx.var.request_id .. "!{name}"
                end
                ngx.header["Set-Cookie"] = cookie .. "; Path=/; HttpOnly"
                local body = ('{{"backend":"{name}","client":"%s"}}\n'):format(ngx.var.remote_addr)
                ngx.header.content_length = #body
                ngx.print(body)
            }}
        }}

        # Takes any body and answers with its length and SHA-256.
        location = /upload {{
            default_type application/json;
            content_by_lua_block {{
                local ffi = require "ffi"
                pcall(ffi.cdef, [[
                    void *EVP_MD_CTX_new(void);
                    void EVP_MD_CTX_free(void *);
                    const void *EVP_sha256(void);
                    int EVP_DigestInit_ex(void *, const void *, void *);
                    int EVP_DigestUpdate(void *, const void *, size_t);
                    int EVP_DigestFinal_ex(void *, unsigned char *, unsigned int *);
                ]])
                local digest = ffi.C.EVP_MD_CTX_new()
                ffi.C.EVP_DigestInit_ex(digest, ffi.C.EVP_sha256(), nil)
                local left = tonumber(ngx.var.http_content_length) or 0
                local bytes = 0
                local socket = left > 0 and ngx.req.socket()
                while socket and left > 0 do
                    local part = socket:receive(math.min(left, 65536))
                    if not part then break end
                    ffi.C.EVP_DigestUpdate(digest, part, #part)
                    bytes = bytes + #part
                    left = left - #part
                end
                local sum = ffi.new("unsigned char[32]")
                ffi.C.EVP_DigestFinal_ex(digest, sum, nil)
                ffi.C.EVP_MD_CTX_free(digest)
                local hex = ffi.string(sum, 32):gsub(".", function(c) return ("%02x"):format(c:byte()) end)
                ngx.say('{{"backend":"{name}","bytes":', bytes, ',"sha256":"', hex, '"}}')
            }}
        }}
    }}
}}
"#
    )
}
