// Dark or light: as the system prefers, until a button says otherwise.

export function addThemeButton(button: HTMLButtonElement): void {
  const page = document.documentElement
  const prefersDark = matchMedia('(prefers-color-scheme: dark)')
  function isDark(): boolean {
    return page.dataset.theme === undefined ? prefersDark.matches : page.dataset.theme === 'dark'
  }
  function label(): void {
    button.setAttribute('aria-pressed', String(isDark()))
  }
  button.addEventListener('click', () => {
    const next = isDark() ? 'light' : 'dark'
    // What the system prefers anyway follows the system again.
    if ((next === 'dark') === prefersDark.matches) delete page.dataset.theme
    else page.dataset.theme = next
    label()
  })
  prefersDark.addEventListener('change', label)
  label()
}
