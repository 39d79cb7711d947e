//! A real container registry for tests: Debian's.

use crate::{PATIENCE, check_programs, manifests::Content, or_not_run};
use reqwest::{Client, StatusCode, header};
use std::{
    fs::File,
    net::Ipv4Addr,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
    time::{Duration, Instant},
};

/// The port is the same for all, because each has an address of its own: to choose a free one would be a race. It is
/// none that systems give to whoever asks for any, nor the usual one of registries.
const PORT: u16 = 5983;

/// Debian's registry, with a folder of its own. It ends with this value.
pub struct Registry {
    process: Child,
    address: Ipv4Addr,
    port: u16,
    folder: tempfile::TempDir,
    http: Client,
}

impl Registry {
    /// Starts one that this machine alone reaches. `None` where there is none, which was said then.
    pub async fn start() -> Option<Self> {
        Self::start_at(own_address(), PORT).await
    }

    /// Starts one at this address, which nobody else may have. `None` where there is none, which was said then.
    ///
    /// # Panics
    /// If it does not run.
    pub async fn start_at(address: Ipv4Addr, port: u16) -> Option<Self> {
        or_not_run(check_programs(&["docker-registry"]))?;
        let folder = tempfile::Builder::new().prefix("starlink-registry-").tempdir().unwrap();
        let storage = folder.path().join("storage");
        let config = format!(
            "version: 0.1\nlog: {{ level: error }}\nhttp: {{ addr: '{address}:{port}', secret: none }}\n\
             storage: {{ filesystem: {{ rootdirectory: '{}' }} }}\n",
            storage.display()
        );
        std::fs::write(folder.path().join("config.yml"), config).unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut registry = Self { process, address, port, folder, http: http() };
        registry.ready().await;
        Some(registry)
    }

    async fn ready(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.http.get(self.url("")).send().await {
                Ok(answer) if answer.status() == StatusCode::OK => return,
                outcome if Instant::now() > until || self.process.try_wait().unwrap().is_some() => {
                    let log = std::fs::read_to_string(self.folder.path().join("log"));
                    panic!("docker-registry does not run: {outcome:?}, {log:?}");
                }
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Its address and port, by which images name it.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// What an image is called that is pushed there.
    #[must_use]
    pub fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.host())
    }

    /// Pushes an image, which is its configuration, its layer and its manifest, under a tag or else under its digest; the
    /// manifest.
    pub async fn push<'a>(&self, repository: &str, tag: Option<&str>, image: &'a [Content; 3]) -> &'a Content {
        let [config, layer, manifest] = image;
        for blob in [config, layer] {
            self.push_blob(repository, blob).await;
        }
        self.push_manifest(repository, tag.unwrap_or(&manifest.digest()), manifest).await;
        manifest
    }

    /// Pushes a configuration.
    pub async fn push_blob(&self, repository: &str, blob: &Content) {
        let begun = self.http.post(self.url(&format!("{repository}/blobs/uploads/"))).send().await.unwrap();
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        let location = begun.headers()[header::LOCATION].to_str().unwrap().to_owned();
        let put = self.http.put(location).query(&[("digest", blob.digest())]).body(blob.body.clone());
        assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
    }

    /// Pushes a manifest under a tag, or under its digest.
    pub async fn push_manifest(&self, repository: &str, reference: &str, manifest: &Content) {
        let put = self.http.put(self.url(&format!("{repository}/manifests/{reference}")));
        let put = put.header(header::CONTENT_TYPE, manifest.kind).body(manifest.body.clone());
        let answer = put.send().await.unwrap();
        let status = answer.status();
        assert_eq!(status, StatusCode::CREATED, "{}", answer.text().await.unwrap());
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.host())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One of this machine's own, which no other test has at the moment.
fn own_address() -> Ipv4Addr {
    static COUNT: AtomicU8 = AtomicU8::new(1);
    let [.., second, third] = std::process::id().to_be_bytes();
    // Nobody looks for anything up there.
    Ipv4Addr::new(127, second ^ 0x80, third, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// TLS is not used, but reqwest wants to know how it would be.
fn http() -> Client {
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Client::builder().no_proxy().timeout(PATIENCE).tls_backend_preconfigured(tls).build().unwrap()
}
