// build.mjs: makes the pages from src/ with Vite.
//
//   node build.mjs [--openapi FILE] [--pages FOLDER] [--sources FOLDER]     both pages
//   node build.mjs --tests FOLDER                                           the unit tests, for `node --test FOLDER/`
//
// A page is one HTML document with its script and style inside, NAME.html, and NAME.csp, a Content-Security-Policy that
// lets only these run, by their hashes. read.d names the files that were read, for the build; this copy of the sources
// may be elsewhere than --sources, which is what read.d names.
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { build, runnerImport } from 'vite'

const root = dirname(fileURLToPath(import.meta.url))
const { values: options } = parseArgs({
  options: {
    openapi: { type: 'string', default: join(root, '../src/openapi.json') },
    pages: { type: 'string', default: join(root, 'out/pages') },
    sources: { type: 'string', default: root },
    tests: { type: 'string' },
  },
})
const common = { root, configFile: false, logLevel: 'warn', publicDir: false }

/** Bundles a module and what it imports: its script, its style, and the source files read. */
async function bundle(entry) {
  const output = await build({
    ...common,
    build: {
      write: false,
      modulePreload: false,
      target: 'es2022',
      cssCodeSplit: false,
      rollupOptions: { input: join(root, entry) },
    },
  })
  const files = output.output
  const scripts = files.filter((file) => file.type === 'chunk')
  if (scripts.length !== 1) throw new Error(`${entry} became ${scripts.length} scripts`)
  const styles = files.filter((file) => file.fileName.endsWith('.css')).map((file) => file.source.toString())
  return { script: scripts[0].code.trim(), style: styles.join('\n').trim(), read: Object.keys(scripts[0].modules) }
}

const hashOf = (text) => `'sha256-${createHash('sha256').update(text).digest('base64')}'`

function writePage(name, html, { script, style }) {
  // Inside <script> these two would be read as HTML; in the strings and patterns of a script both ways mean the same.
  const code = script.replaceAll('</script', '<\\/script').replaceAll('<!--', '<\\!--')
  const page = html
    .replace('<!--style-->', () => `<style>${style}</style>`)
    .replace('<!--script-->', () => `<script type="module">${code}</script>`)
  const policy = [
    "default-src 'none'",
    `script-src ${hashOf(code)}`,
    `style-src ${hashOf(style)}`,
    "connect-src 'self'",
    'img-src data:',
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ]
  writeFileSync(join(options.pages, `${name}.html`), page)
  writeFileSync(join(options.pages, `${name}.csp`), policy.join('; '))
}

/** Make's format. A file of this folder is named where its original is; those of packages are not named. */
function writeRead(files) {
  const named = files
    .map((file) => file.replace(/\?.*/, ''))
    .filter((file) => file.startsWith(root) && !file.includes('node_modules'))
    .map((file) => join(resolve(options.sources), relative(root, file)))
  const spaced = [...new Set([...named, resolve(options.openapi)])].map((file) => file.replaceAll(' ', '\\ '))
  writeFileSync(join(options.pages, 'read.d'), `${join(options.pages, 'explorer.html')}: ${spaced.join(' ')}\n`)
}

async function makePages() {
  mkdirSync(options.pages, { recursive: true })
  const html = (name) => readFileSync(join(root, `src/${name}.html`), 'utf8')
  const explorer = await bundle('src/explorer.tsx')
  writePage('explorer', html('explorer'), explorer)

  const document = JSON.parse(readFileSync(options.openapi, 'utf8'))
  const { module, dependencies } = await runnerImport(join(root, 'src/docs/render.ts'), common)
  const docs = await bundle('src/docs/docs.ts')
  writePage(
    'docs',
    html('docs/docs').replace('<!--body-->', () => module.renderDocs(document)),
    docs,
  )

  const pages = ['src/explorer.html', 'src/docs/docs.html', 'src/docs/render.ts'].map((file) => join(root, file))
  const styles = readdirSync(join(root, 'src'), { recursive: true }).filter((file) => file.endsWith('.css'))
  writeRead([
    ...explorer.read,
    ...docs.read,
    ...pages,
    ...dependencies.map((file) => resolve(root, file)),
    ...styles.map((file) => join(root, 'src', file)),
  ])
}

async function makeTests() {
  const names = readdirSync(join(root, 'tests')).filter((file) => file.endsWith('.test.ts'))
  await build({
    ...common,
    build: {
      ssr: true,
      outDir: resolve(options.tests),
      emptyOutDir: true,
      target: 'node20',
      rollupOptions: {
        input: names.map((name) => join(root, 'tests', name)),
        output: { entryFileNames: '[name].mjs' },
      },
    },
  })
}

await (options.tests ? makeTests() : makePages())
