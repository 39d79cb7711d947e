use super::*;
use crate::{
    containers::EngineImage, fleet::Architecture, ids::ServerId, scheduling::TaskDriver, text::Name, units::Resources,
};
use async_trait::async_trait;

struct Answers {
    registry: Result<ImageTruth, RegistryFailure>,
    engines: Vec<(ServerId, EngineImage)>,
}

#[async_trait]
impl Registries for Answers {
    async fn look_up(&self, _: &ImageName) -> Result<ImageTruth, RegistryFailure> {
        self.registry.clone()
    }
}

#[async_trait]
impl Engines for Answers {
    async fn look_up(&self, _: &ImageName) -> Vec<(ServerId, EngineImage)> {
        self.engines.clone()
    }

    async fn images(&self, _: ServerId) -> Result<Vec<crate::containers::wire::ListedImage>> {
        Ok(Vec::new())
    }
}

fn platforms(texts: &[&str]) -> Vec<Platform> {
    texts.iter().map(|text| Platform::try_from((*text).to_owned()).unwrap()).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "as the port answers")]
fn registry(texts: &[&str]) -> Result<ImageTruth, RegistryFailure> {
    Ok(ImageTruth::pulled("sha256:1", platforms(texts)))
}

fn task() -> TaskSpec {
    let name = Name::trusted("web".to_owned());
    let image = Some("acme/web:1".to_owned());
    TaskSpec { driver: TaskDriver::Docker, image, ..TaskSpec::new(name, Resources::default()) }
}

async fn identify(
    spec: TaskSpec,
    registry: Result<ImageTruth, RegistryFailure>,
    engines: &[Option<&str>],
) -> Result<Option<ImageTruth>> {
    let engines = (1..).zip(engines).map(|(id, text)| {
        let platform = text.map(|text| platforms(&[text]).remove(0));
        (ServerId(id), EngineImage { id: format!("sha256:{id}"), platform })
    });
    let answers = Arc::new(Answers { registry, engines: engines.collect() });
    let service = ImageService::new(answers.clone(), answers);
    let known = service.identify(spec).await?;
    Ok(known.image_truth)
}

fn only(architecture: Architecture) -> TaskSpec {
    TaskSpec { architecture: ArchitectureNeed::Only(architecture), ..task() }
}

fn silent() -> Result<ImageTruth, RegistryFailure> {
    Err(RegistryFailure::Silent("docker.io does not answer".to_owned()))
}

#[track_caller]
fn check_refused(outcome: Result<Option<ImageTruth>>, kind: &str, sentence: &str) {
    let error = outcome.unwrap_err();
    let told = match &error {
        Error::Invalid { errors } => errors[0].field.as_str(),
        Error::Conflict { code, .. } => code,
        Error::Unavailable { .. } => "unavailable",
        other => panic!("{other:?}"),
    };
    assert_eq!(told, kind, "{error}");
    assert!(error.to_string().contains(sentence), "{error}");
}

#[tokio::test]
async fn the_registry_is_believed_before_engines_and_pins_the_image() {
    let truth = identify(task(), registry(&["linux/arm64"]), &[Some("linux/amd64")]).await.unwrap();
    assert_eq!(truth, Some(registry(&["linux/arm64"]).unwrap()));
}

#[tokio::test]
async fn what_only_engines_have_is_what_they_have_together() {
    for failure in [silent(), Err(RegistryFailure::Missing("docker.io has no image".to_owned()))] {
        let engines = [Some("linux/arm64"), Some("linux/amd64"), Some("linux/arm64"), None];
        let truth = identify(task(), failure, &engines).await.unwrap();
        let servers = [1, 2, 3, 4].map(ServerId).to_vec();
        let expected =
            ImageTruth { platforms: platforms(&["linux/amd64", "linux/arm64"]), servers, ..ImageTruth::default() };
        assert_eq!(truth, Some(expected));
    }
}

#[tokio::test]
async fn what_nobody_knows_is_refused() {
    let missing = || Err(RegistryFailure::Missing("docker.io has no image acme/web:1".to_owned()));
    check_refused(
        identify(task(), missing(), &[]).await,
        "image_missing",
        "docker.io has no image acme/web:1; nor does",
    );
    check_refused(identify(task(), silent(), &[]).await, "unavailable", "\"verify_image\": false");
    check_refused(identify(only(Architecture::Arm64), silent(), &[]).await, "unavailable", "does not answer");
    let no_image = Err(RegistryFailure::NoImage("is a chart, not an image".to_owned()));
    check_refused(identify(task(), no_image, &[]).await, "image", "is a chart");
}

#[tokio::test]
async fn a_stated_architecture_must_be_among_the_images() {
    let has = || registry(&["linux/arm64", "linux/riscv64"]);
    assert!(identify(only(Architecture::Arm64), has(), &[]).await.unwrap().is_some());
    let refused = identify(only(Architecture::X86_64), has(), &[]).await;
    check_refused(refused, "required_architecture", "it has linux/arm64, linux/riscv64");
    // What it has runs nowhere here, which pending tells better than a refusal: a task may state nothing.
    assert!(identify(task(), registry(&["linux/arm/v7"]), &[]).await.unwrap().is_some());
}

#[tokio::test]
async fn an_image_that_does_not_say_is_taken_for_what_its_task_says() {
    check_refused(identify(task(), registry(&[]), &[]).await, "required_architecture", "does not say");
    check_refused(identify(task(), silent(), &[None]).await, "required_architecture", "does not say");
    assert!(identify(only(Architecture::Arm64), registry(&[]), &[]).await.unwrap().is_some());
}

#[tokio::test]
async fn nothing_is_asked_for_a_task_without_an_image_or_that_wants_it_unasked() {
    let unasked = TaskSpec { verify_image: false, ..only(Architecture::Arm64) };
    assert_eq!(identify(unasked, silent(), &[]).await.unwrap(), None);
    let plain = TaskSpec { image: None, driver: TaskDriver::None, ..task() };
    assert_eq!(identify(plain, silent(), &[]).await.unwrap(), None);
}
