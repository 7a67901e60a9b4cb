package answers

import (
	"strings"
	"testing"
)

func TestBoxed(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		text, want string
		ok         bool
	}{
		"plain":                    {`so \boxed{5}.`, "5", true},
		"nested braces":            {`\boxed{\frac{1}{\sqrt{2}}}`, `\frac{1}{\sqrt{2}}`, true},
		"escaped braces":           {`\boxed{\{1,2\}}`, `\{1,2\}`, true},
		"the last one":             {`\boxed{1} or \boxed{2}`, "2", true},
		"one in another":           {`\boxed{1+\boxed{2}}`, "2", true},
		"a box that does not end":  {`\boxed{1} or \boxed{2`, "1", true},
		"fbox":                     {`\fbox{7}`, "7", true},
		"a space before the brace": {`\boxed {7}`, "7", true},
		"spaces within":            {`\boxed{ 7 }`, "7", true},
		"empty":                    {`\boxed{}`, "", true},
		"none":                     {"7", "", false},
		"without braces":           {`\boxed 7`, "", false},
		"closed only":              {`\boxed}7{`, "", false},
		"a backslash at the end":   {`\boxed{7\`, "", false},
		"braces around a box":      {`{\boxed{7}}`, "7", true},
	} {
		t.Run(name, func(t *testing.T) {
			if got, ok := Boxed(c.text); got != c.want || ok != c.ok {
				t.Errorf("got %q, %v", got, ok)
			}
		})
	}
}

func TestLaTeXIsEqual(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("(", 200) + "1" + strings.Repeat(")", 200)
	for name, c := range map[string]struct {
		a, b  string
		equal bool
	}{
		// Numbers.
		"the same":                    {"5", "5", true},
		"another":                     {"5", "6", false},
		"a decimal":                   {"0.5", `\frac{1}{2}`, true},
		"a point first":               {".5", "0.50", true},
		"fractions of other commands": {`\dfrac{1}{2}`, `\tfrac{2}{4}`, true},
		"a fraction without braces":   {`\frac12`, `\frac{1}{2}`, true},
		"one brace only":              {`\frac1{72}`, `\frac{1}{72}`, true},
		"a stroke":                    {"1/2", `\frac{1}{2}`, true},
		"a sign in three places":      {`-\frac{1}{2}`, `\frac{-1}{2}`, true},
		"a sign below":                {`\frac{1}{-2}`, `-\frac12`, true},
		"another sign":                {`\frac{1}{2}`, `-\frac{1}{2}`, false},
		"a mixed number":              {`1\frac{1}{2}`, `\frac{3}{2}`, true},
		"a negative mixed number":     {`-1\frac{1}{2}`, "-1.5", true},
		"thousands":                   {"1,234", "1234", true},
		"thousands in TeX":            {`1{,}234`, "1234", true},
		"thin spaces":                 {`1\,234`, "1234", true},
		"a sum":                       {`\frac12+\frac13`, `\frac56`, true},
		"a product":                   {`2\cdot 3`, "6", true},
		"a power":                     {`2^{10}`, "1024", true},
		"a negative power":            {`2^{-1}`, "0.5", true},
		"brackets":                    {`(2+3)\times 4`, "20", true},
		"times ten":                   {`3\times 10^5`, "300000", true},
		"nested fractions":            {`\frac{\frac{1}{2}}{3}`, `\frac16`, true},
		"division by zero":            {`\frac{1}{0}`, `\frac{2}{0}`, false},
		"zero":                        {"0", "-0", true},
		"a third is not rounded":      {"0.333", `\frac13`, false},
		"Unicode's minus":             {"−5", "-5", true},
		// Roots and π.
		"a root":                   {`\sqrt{3}`, `\sqrt 3`, true},
		"a square's root":          {`\sqrt{16}`, "4", true},
		"a fraction's root":        {`\sqrt{\frac{1}{4}}`, "0.5", true},
		"squares taken out":        {`\sqrt{12}`, `2\sqrt{3}`, true},
		"rationalised":             {`\frac{1}{\sqrt{2}}`, `\frac{\sqrt{2}}{2}`, true},
		"roots multiplied":         {`\sqrt2\cdot\sqrt3`, `\sqrt6`, true},
		"a sum in another order":   {`1+\sqrt{2}`, `\sqrt{2}+1`, true},
		"split into two":           {`\frac{1+\sqrt5}{2}`, `\frac12+\frac{\sqrt5}{2}`, true},
		"a binomial squared":       {`(1+\sqrt2)^2`, `3+2\sqrt2`, true},
		"another root":             {`\sqrt2`, `\sqrt3`, false},
		"a root is no decimal":     {`\sqrt2`, "1.41421356", false},
		"a cube root":              {`\sqrt[3]{8}`, "2", true},
		"a cube root that is none": {`\sqrt[3]{9}`, `\sqrt[3]{9}`, true},
		"pi":                       {`2\pi`, `\pi\cdot 2`, true},
		"Unicode's pi":             {"2π", `2\pi`, true},
		"pi below":                 {`\frac{3}{\pi}`, `\frac{6}{2\pi}`, true},
		"pi is no decimal":         {`\pi`, "3.14159", false},
		"pi squared":               {`\pi^2`, `\pi\pi`, true},
		"pi over a number":         {`\frac{\pi}{2}`, `\pi/2`, true},
		// Looks.
		"left and right":           {`\left(1,2\right)`, "(1,2)", true},
		"spaces":                   {`( 1 , \; 2 )`, "(1,2)", true},
		"dollars around it":        {`$5$`, "5", true},
		"a dollar sign":            {`\$5`, "5", true},
		"percent":                  {`50\%`, "50", true},
		"percent of both":          {`50\%`, "50%", true},
		"degrees":                  {`90^\circ`, "90", true},
		"degrees in braces":        {`90^{\circ}`, "90°", true},
		"a unit":                   {`5\text{ cm}`, "5", true},
		"the same unit":            {`5\text{ cm}`, `5\,\mathrm{cm}`, true},
		"a unit in letters":        {`5\text{ cm}`, "5 cm", true},
		"a converted unit":         {`5\text{ cm}`, `50\text{ mm}`, true},
		"another unit":             {`5\text{ cm}`, `5\text{ kg}`, false},
		"a square unit":            {`5\text{ cm}^2`, `5\text{ cm}^{2}`, true},
		"a full stop":              {"5.", "5", true},
		"braces around all":        {"{5}", "5", true},
		"a variable before":        {"x=5", "5", true},
		"a variable in a set":      {`x\in[0,1]`, "[0,1]", true},
		"an equation of two sides": {"y=2x+1", "y = 2x + 1", true},
		"a boxed reference":        {`Hence \boxed{5}`, "5", true},
		"display style":            {`\displaystyle\frac12`, "0.5", true},
		// Words and formulas.
		"words":                      {`\text{Yes}`, "Yes", true},
		"words with a space":         {`\text{right triangle}`, `\mathrm{right\ triangle}`, true},
		"other words":                {`\text{Yes}`, `\text{No}`, false},
		"a letter in brackets":       {`\text{(C)}`, "C", true},
		"bold words":                 {`\textbf{Yes}`, `\text{Yes}`, true},
		"an exponent's braces":       {`x^{2}`, "x^2", true},
		"a longer exponent":          {`x^{12}`, "x^12", false}, // TeX reads (x^1)2
		"a fraction of letters":      {`\frac{x}{2}`, "x/2", true},
		"a fraction of sums":         {`\frac{x+1}{2}`, "(x+1)/2", true},
		"inequalities":               {`x\le 2`, `x \leq 2`, true},
		"infinity":                   {`\infty`, "∞", true},
		"the empty set":              {`\emptyset`, `\varnothing`, true},
		"a formula in another order": {"x+1", "1+x", false}, // compared as text
		// Lists, sets, tuples, intervals.
		"a list in another order":          {"1,-2", "-2, 1", true},
		"a list with and":                  {`1\text{ and }2`, "1,2", true},
		"a list with or":                   {`1 \text{ or } 2`, "2,1", true},
		"a shorter list":                   {"1,2", "1", false},
		"a list with one twice":            {"1,1,2", "1,2,2", false},
		"a set":                            {`\{1,2\}`, `\{2,1\}`, true},
		"a set with fractions":             {`\left\{\frac12, 3\right\}`, `\{3, 0.5\}`, true},
		"lbrace":                           {`\lbrace 1,2\rbrace`, `\{1,2\}`, true},
		"a set is no list":                 {`\{1,2\}`, "1,2", false},
		"a tuple":                          {"(1,2)", `\left(1,\frac{4}{2}\right)`, true},
		"a tuple in another order":         {"(1,2)", "(2,1)", false},
		"nested tuples":                    {"((1,2),3)", "((1,4/2),3)", true},
		"an interval":                      {"[0,1)", `\left[0,1\right)`, true},
		"an interval closed otherwise":     {"[0,1)", "[0,1]", false},
		"an interval to infinity":          {`(-\infty, 2]`, `(-\infty,\frac{4}{2}]`, true},
		"a union":                          {`(1,2)\cup(3,4)`, `(3,4) \cup (1,2)`, true},
		"Unicode's union":                  {`(1,2)∪(3,4)`, `(1,2)\cup(3,4)`, true},
		"another union":                    {`(1,2)\cup(3,4)`, `(1,2)\cup(3,5)`, false},
		"brackets around one":              {"(5)", "5", true},
		"a list of one in square brackets": {"[5]", "5", false},
		"a tuple of thousands":             {"(1,000)", "(1,0)", true}, // in brackets a comma separates
		"a matrix":                         {`\begin{pmatrix}1\\2\end{pmatrix}`, `\begin{pmatrix} 1 \\ 2 \end{pmatrix}`, true},
		// Hostile.
		"nothing":                     {"", "", true},
		"nothing and something":       {"", "0", false},
		"brackets that do not close":  {"((1,2", "1,2", false},
		"brackets that close only":    {"1,2))", "1,2", false},
		"braces that do not close":    {`\frac{1}{2`, `\frac{1}{2`, true},
		"a fraction of nothing":       {`\frac`, `\frac{}{}`, true}, // both are of no value
		"200 brackets deep":           {deep, deep, true},
		"too large a power":           {`9^{9^{9}}`, `9^{9^{9}}`, true},
		"a power of 400 digits":       {`2^{99999}`, `2^{99999}`, true},
		"a root of what is too large": {`\sqrt{99999999999999999999}`, `\sqrt{99999999999999999999}`, true},
		"a root of a negative number": {`\sqrt{-1}`, `-\sqrt{1}`, false},
		"5 KiB are compared as text":  {strings.Repeat("1+", 2500) + "1", "2501", false},
		"a backslash alone":           {`\`, `\`, true},
		"bytes that are no text":      {"\xff", "\xff", true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := ReadLaTeX(c.a), ReadLaTeX(c.b)
			if a.Equal(b) != c.equal || b.Equal(a) != c.equal {
				t.Errorf("equal: %v and %v; %+v, %+v", a.Equal(b), b.Equal(a), a, b)
			}
		})
	}
}

// Nothing panics; an answer equals itself, and equality has no order.
func FuzzLaTeX(f *testing.F) {
	for _, seed := range []string{
		`\frac{1+\sqrt{5}}{2}`, `\left[0, \infty\right)`, `\{1,\text{ and }2\}`, `1\frac12\%`, `90^\circ`, `x\in(1,2)\cup[3,4)`, `\sqrt[3]{8}^{-2}`,
		`\text{\text{\text{5}}}`, `1{,}000\text{ cm}^2`, `((((`, `\frac\frac\frac`, `{}{}{}`, `2^{2^{2}}`, `\pi\pi/\pi`,
	} {
		f.Add(seed, seed)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		x, y := ReadLaTeX(a), ReadLaTeX(b)
		if !x.Equal(x) || !x.Equal(ReadLaTeX(a)) {
			t.Errorf("%q is not equal to itself", a)
		}
		if x.Equal(y) != y.Equal(x) {
			t.Errorf("%q and %q are equal in one order only", a, b)
		}
	})
}
