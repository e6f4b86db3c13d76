//! Requests that a model cannot serve, or that find no model.

use super::*;

#[derive(Resource, Default)]
struct Ended(Option<Result<DdpmOutput, InferError>>);

/// Ends with an error that has `words` in its message, and the next good request works.
#[track_caller]
fn assert_request_refused(request: DdpmRequest, words: &[&str]) {
    let mut app = app();
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load(fixture());
    let error = end(&mut app, request).expect_err("the request cannot be served");
    assert!(
        matches!(error, InferError::InvalidRequest { .. }),
        "{error:?}"
    );
    for word in words {
        assert!(
            error.to_string().contains(word),
            "{word:?} is not in {error}"
        );
    }
    let good = DdpmRequest {
        class: Some(0),
        steps: 1,
        ..default()
    };
    end(&mut app, good).expect("the model goes on");
}

fn end(app: &mut App, request: DdpmRequest) -> Result<DdpmOutput, InferError> {
    app.init_resource::<Ended>();
    app.world_mut()
        .spawn(Infer::<DdpmPipeline>::new(request))
        .observe(
            |mut done: On<Inferred<DdpmPipeline>>, mut ended: ResMut<Ended>| {
                ended.0 = Some(done.take());
            },
        );
    run_until(app, "the end", |world| {
        world.resource::<Ended>().0.is_some()
    });
    app.world_mut()
        .resource_mut::<Ended>()
        .0
        .take()
        .expect("it was just there")
}

#[test]
fn a_class_out_of_range_is_refused() {
    assert_request_refused(
        DdpmRequest {
            class: Some(3),
            ..default()
        },
        &["`class` is 3", "0 to 2"],
    );
}

#[test]
fn a_class_that_is_needed_and_not_given_is_refused() {
    assert_request_refused(DdpmRequest::default(), &["`class` is None", "0 to 2"]);
}

#[test]
fn zero_steps_and_too_many_are_refused() {
    for steps in [0, 501] {
        let request = DdpmRequest {
            class: Some(0),
            steps,
            ..default()
        };
        assert_request_refused(request, &["`steps` is", "1 to 500"]);
    }
}

#[test]
fn no_pictures_too_many_and_the_wrong_noise_are_refused() {
    let too_many = DdpmRequest {
        class: Some(0),
        batch: u32::MAX,
        ..default()
    };
    assert_request_refused(too_many, &["`batch` is 4294967295"]);
    assert_request_refused(
        DdpmRequest {
            class: Some(0),
            batch: 0,
            ..default()
        },
        &["`batch` is 0"],
    );
    let noise = Some([0.0; 5].into());
    assert_request_refused(
        DdpmRequest {
            class: Some(0),
            noise,
            ..default()
        },
        &["`noise` is 5 numbers", "96 numbers"],
    );
}

#[test]
fn with_nothing_loaded_the_job_says_what_to_do() {
    let error = end(&mut app(), DdpmRequest::default()).expect_err("nothing is loaded");
    assert!(
        error
            .to_string()
            .contains("call `ModelManager::load` first"),
        "{error}"
    );
}

#[test]
fn with_a_failed_model_the_job_says_why() {
    let mut app = app();
    app.world_mut()
        .resource_mut::<ModelManager<DdpmPipeline>>()
        .load("models/nowhere");
    let error = end(&mut app, DdpmRequest::default()).expect_err("the model failed");
    assert!(
        ErrorChain(&error).to_string().contains("models/nowhere"),
        "{}",
        ErrorChain(&error)
    );
}
