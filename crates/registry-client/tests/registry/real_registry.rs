use crate::images::Content;
use registry_client::RegistryOptions;
use reqwest::{Client, StatusCode, header};
use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Debian's registry, with a folder of its own. It ends with this value.
pub(crate) struct RealRegistry {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
    http: Client,
}

impl RealRegistry {
    /// Starts one. `None` where there is none, which was said then.
    pub(crate) async fn start() -> Option<Self> {
        test_engine::or_not_run(test_engine::check_programs(&["docker-registry"]))?;
        // Between choosing a port and listening, somebody else may take it.
        for _ in 0..10 {
            if let Some(registry) = Self::try_start().await {
                return Some(registry);
            }
        }
        panic!("docker-registry does not start");
    }

    async fn try_start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::Builder::new().prefix("starlink-registry-").tempdir().unwrap();
        let storage = folder.path().join("storage");
        let config = format!(
            "version: 0.1\nlog: {{ level: error }}\nhttp: {{ addr: '127.0.0.1:{port}', secret: none }}\n\
             storage: {{ filesystem: {{ rootdirectory: '{}' }}, delete: {{ enabled: true }} }}\n",
            storage.display()
        );
        std::fs::write(folder.path().join("config.yml"), config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(folder.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut registry = Self { process, port, _folder: folder, http: http() };
        let until = Instant::now() + crate::PATIENCE;
        while Instant::now() < until && registry.process.try_wait().unwrap().is_none() {
            let answer = registry.http.get(registry.url("")).send().await;
            // Whoever else took the port is no registry, or not this one, which has ended then.
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
                && registry.process.try_wait().unwrap().is_none()
            {
                return Some(registry);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        None
    }

    /// What an image is called that is pushed there.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("127.0.0.1:{}/{rest}", self.port)
    }

    /// Pushes a configuration.
    pub(crate) async fn push_blob(&self, repository: &str, blob: &Content) {
        let begun = self.http.post(self.url(&format!("{repository}/blobs/uploads/"))).send().await.unwrap();
        assert_eq!(begun.status(), StatusCode::ACCEPTED);
        let location = begun.headers()[header::LOCATION].to_str().unwrap().to_owned();
        let put = self.http.put(location).query(&[("digest", blob.digest())]).body(blob.body.clone());
        assert_eq!(put.send().await.unwrap().status(), StatusCode::CREATED);
    }

    /// Pushes a manifest under a tag, or under its digest.
    pub(crate) async fn push_manifest(&self, repository: &str, reference: &str, manifest: &Content) {
        let put = self.http.put(self.url(&format!("{repository}/manifests/{reference}")));
        let put = put.header(header::CONTENT_TYPE, manifest.kind).body(manifest.body.clone());
        let answer = put.send().await.unwrap();
        let status = answer.status();
        assert_eq!(status, StatusCode::CREATED, "{}", answer.text().await.unwrap());
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/v2/{path}", self.port)
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// TLS is not used, but reqwest wants to know how it would be.
fn http() -> Client {
    let tls = rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let timeout = RegistryOptions::default().patience;
    Client::builder().no_proxy().timeout(timeout).tls_backend_preconfigured(tls).build().unwrap()
}
