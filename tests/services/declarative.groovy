// Runs a declarative Jenkinsfile without a Jenkins: each section takes what Jenkins lets it take,
// `sh` runs the real script, and one JSON document tells what became of the build.
//
// java -cp groovy-all.jar groovy.ui.GroovyMain declarative.groovy JENKINSFILE SETTINGS.json

import groovy.json.JsonOutput
import groovy.json.JsonSlurper
import org.codehaus.groovy.control.CompilerConfiguration

class Aborted extends RuntimeException {
    Aborted(String message) { super(message) }
}

class Build {
    Map settings
    Map params = [:]
    Map environment = [:]
    List log = []
    List stages = []
    List sections = []
    String result = 'SUCCESS'
    String description = ''

    void worsen(String to) {
        def order = ['SUCCESS', 'UNSTABLE', 'FAILURE']
        if (order.indexOf(to) > order.indexOf(result)) { result = to }
    }

    def run(Map options) {
        def script = options.script
        def builder = new ProcessBuilder('sh', '-xe', '-c', script).directory(new File(settings.workspace))
        builder.environment().putAll(environment.collectEntries { [(it.key): it.value as String] })
        builder.redirectErrorStream(true)
        def process = builder.start()
        process.outputStream.close()
        log << process.inputStream.text
        int status = process.waitFor()
        if (options.returnStatus) { return status }
        if (status != 0) { throw new Aborted("script returned exit code ${status}") }
        return null
    }
}

// A section of the pipeline: what it does not know is an error, as it is in Jenkins.
class Section {
    Build build
    String name
    Map known

    def methodMissing(String called, args) {
        if (!known.containsKey(called)) {
            throw new MissingMethodException(called, Section, args as Object[])
        }
        return known[called].call(*args)
    }

    def propertyMissing(String called) {
        if (called == 'env') { return new Expando(build.environment) }
        if (called == 'params') { return build.params }
        if (called in ['any', 'none']) { return called }
        throw new MissingPropertyException(called, Section)
    }
}

// The steps within `steps` and `post`, and what `script` adds to them.
class Steps {
    Build build

    def getEnv() { new Expando(build.environment) }
    def getParams() { build.params }
    def getScm() { [branches: ['main'], extensions: [], userRemoteConfigs: ['origin']] }
    def getCurrentBuild() { build }
    def sh(String script) { build.run(script: script) }
    def sh(Map options) { build.run(options) }
    def echo(String text) { build.log << text }
    def error(String text) { throw new Aborted(text) }
    def unstable(String text) { build.log << text; build.worsen('UNSTABLE') }
    def readFile(String path) { new File(build.settings.workspace, path).text }
    def fileExists(String path) { new File(build.settings.workspace, path).exists() }
    def checkout(Map options) { build.log << "checkout ${options.extensions}".toString() }
    def junit(Map options) { build.log << "junit ${options.testResults}".toString() }
    def archiveArtifacts(Map options) { build.log << "archive ${options.artifacts}".toString() }
    def lastSuccessful(Map options) { options }
    def string(Map options) { options }
    def copyArtifacts(Map options) {
        build.log << "copy ${options.projectName} ${options.selector}".toString()
        def kept = build.settings.artifacts[options.projectName]
        assert kept || options.optional
        if (kept) { sh("mkdir -p ${options.target} && cp -R ${kept}/build ${options.target}/build") }
    }
    def script(Closure body) { call(body) }
    def withEnv(List pairs, Closure body) {
        within(pairs.collectEntries { it.toString().split('=', 2).toList() }, body)
    }
    def withCredentials(List bindings, Closure body) {
        within(bindings.collectEntries { [(it.variable): build.settings.secrets[it.credentialsId]] }, body)
    }

    def within(Map more, Closure body) {
        def before = new LinkedHashMap(build.environment)
        build.environment.putAll(more)
        try { call(body) } finally { build.environment = before }
    }

    def call(Closure body) {
        def copy = body.rehydrate(this, this, this)
        copy.resolveStrategy = Closure.DELEGATE_FIRST
        copy.call()
    }
}

def inside(Build build, String name, Map known, Closure body) {
    def section = new Section(build: build, name: name, known: known)
    def copy = body.rehydrate(section, section, section)
    copy.resolveStrategy = Closure.DELEGATE_FIRST
    copy.call()
}

def parameter(Build build) {
    return { Map options ->
        assert options.keySet() == ['name', 'defaultValue', 'description'] as Set
        build.params[options.name] = build.settings.params.getOrDefault(options.name, options.defaultValue)
        build.environment[options.name] = build.params[options.name] as String
    }
}

def stage(Build build, String name, Closure body) {
    build.stages << name
    // After a failure the stages that are left are skipped.
    if (build.result == 'FAILURE') { return }
    try {
        inside(build, name, [steps: { Closure steps -> new Steps(build: build).call(steps) }], body)
    } catch (Aborted aborted) {
        build.log << aborted.message
        build.worsen('FAILURE')
    }
}

def pipeline(Build build, Closure body) {
    Closure post = null
    def nothing = { Object[] arguments -> null }
    def options = ['buildDiscarder', 'disableConcurrentBuilds', 'skipDefaultCheckout', 'timeout', 'logRotator']
    def known = [
        agent: { kind -> assert kind in ['any', 'none'] },
        parameters: { Closure each ->
            inside(build, 'parameters', [string: parameter(build), booleanParam: parameter(build)], each)
        },
        options: { Closure each -> inside(build, 'options', options.collectEntries { [(it): nothing] }, each) },
        environment: { Closure each -> assign(build, each) },
        stages: { Closure each ->
            inside(build, 'stages', [stage: { String name, Closure stage -> this.stage(build, name, stage) }], each)
        },
        post: { Closure each -> post = each },
    ]
    known = known.collectEntries { name, does -> [(name): { Object[] arguments ->
        assert !(name in build.sections)
        build.sections << name
        does.call(*arguments)
    }] }
    inside(build, 'pipeline', known, body)
    assert ['agent', 'stages'].every { it in build.sections }
    if (post != null) {
        inside(build, 'post', [always: { Closure each -> new Steps(build: build).call(each) }], post)
    }
}

def assign(Build build, Closure body) {
    def target = new Expando(env: new Expando(build.environment))
    def copy = body.rehydrate(target, target, target)
    copy.resolveStrategy = Closure.DELEGATE_ONLY
    copy.call()
    target.properties.each { name, value -> if (name != 'env') { build.environment[name] = value as String } }
}

def settings = new JsonSlurper().parse(new File(args[1]))
def build = new Build(settings: settings)
build.environment.putAll(settings.environment)
build.environment.WORKSPACE = settings.workspace
def binding = new Binding()
binding.setVariable('pipeline', { Closure body -> pipeline(build, body) })
def source = new File(args[0]).text
new GroovyShell(this.class.classLoader, binding, new CompilerConfiguration()).evaluate(source, 'Jenkinsfile')
println JsonOutput.toJson([
    result: build.result, description: build.description, stages: build.stages,
    sections: build.sections, log: build.log,
])
