"""What words of the training split are coined from: everyday words, and the letter groups that words consist of.

A held-out name is copied piece by piece. Whoever has met its pieces only in the few hundred nouns of the task families
copies those nouns instead; so training also draws from words and letter groups that no family uses.
"""

from __future__ import annotations

EVERYDAY = """
    example method function assert python command attribute model instance version output need pass line
    argument case right copy option input release parameter target call support current size template context mask
    item available super response state format mode note form variable length custom include header directory work
    install cache expression exception process term base slice continue specific element possible valid sequence
    parent standard write behavior offset point system cast alpha section event feature operation otherwise handle
    another extra await keep avoid body store additional contain override sparse entry extension math present break
    page info memory dimension load resource main define worker shell step collection algorithm reference address
    reason statement width location client flag particular generate chunk join replace control future special port
    inside interface actual invalid html host reactor primary bound username operator scale ensure usage binary auto
    child link stream loop subset action issue category console rule directive signal construct condition fixture
    validation language real initial require syntax skip device lazy complete handler setup necessary less static
    implement position pool normal place program stack execution storage explicit positive enable describe refer
    active accept buffer final exist migration comment coordinate perform validate parallel admin assignment image
    individual partition interval safe general addition property exact remote definition revision security exclude
    wait arbitrary strategy dialect render metric negative hash wrap generic fail distance commit entire cause merge
    priority foreign clause comparison give constant down consider center compare core though container depth
    capacity proxy kernel warn flow summary failure attempt selection identity children cover connect frequency
    origin caption caller generator indicate prevent native absolute difference upgrade iteration escape represent
    follow together reduce resolution assume repository threshold tolerance regression sign framework layer appear
    profile batch layout literal factor aggregate resolve power cycle figure inverse reader clone span align
    automatic history temporary relevant choose minimal entity hidden bind virtual direct suite echo free choice
    secret expect solution expand consistent implicit fact identical guide creation background prior registry
    intercept zone backward speed magic trend dynamic fall helper tutorial wish detect division efficient extract
    precedence topic snapshot suitable gateway provider delay abstract completion statistic predict machine verify
    care indicator world regardless builder progress pipeline production flush disk boundary convention ready robust
    sense question diagonal union broadcast leave direction behaviour understand people reduction candidate blog
    broker deployment treat shortcut patch shutdown mechanism counter correspond collect utility equality mind
    permission orient purpose ability overload convenient duration catch operate relation sentinel logical manage
    feed penalty coverage identify remain think recommend criteria practice hand alignment restore criterion outcome
    manual push prediction reuse evaluation consumer area serve live atomic physical eager compile proper decision
    discussion hint middle migrate transport theme flexible success discrete gradient protection confidence
    deviation potential secure overlap arithmetic seasonal divide maintain density prefer finish remainder
    likelihood associate solve expensive cascade trio dependent successful retain bulk incomplete deploy strip bold
    derivative singular minor immediate incorrect terminate visible draw chord integral traffic confirm fraction
    delegate inclusive differ answer plan hide tweet pretty cleanup latter simplify naive past crawl detection
    discovery adapter piece overhead increase learn highlight vary unlike developer careful visit tornado optimal
    trace inspector front attach advantage pure cross prop population sheet payload sandy presence helpful matter
    border optimize enforce cumulative canonical notice impact media placement estimation overflow listener reach
    accessible aspect repeat gender encryption difficult trim reflect unsafe interact concurrent phase strong curve
    person mammal volume headline variety chance alternate peer illustrate auxiliary horizontal rewrite contact
    stuff intent legend vertical transit circular listen secondary refresh familiar feedback measure similarity
    revenue standalone remember usable persist latex bandwidth reflection health historical complexity principal
    recall beat hierarchy introduce overall interpret portion objective pivot weak finite guess prime primitive clip
    online feel effective downstream trust great startup contrast freedom restart master upstream expansion serial
    rotation colon express animal exclusive routine accuracy traverse baseline powerful stay plural fire critical
    consume phrase collector official nursery couple stride bundle procedure handshake screen affinity achieve
    experience worry respective manner restrict compact correction functional demand crash geographic popular
    substitute acquire marginal technique publish scenario video sensitive sufficient closure silence slash throw
    imaginary trivial worth countdown attachment visibility influence protect develop reporter roll walk pointer
    surface tracker confusion benefit impossible portal removal instrument dual collapse inventory ancestor consist
    seem agent incident prepare explain precise proceed margin authority proportion tick hack dump majority
    reasonable scatter home decorate periodic risk medium efficiency acceptable heap fold effort nature exceed
    avatar publisher limitation validity connector permanent orphan disconnect redundant recognize observer poll
    forget justify analyze brief assumption noise truth textual expiration demo glue checkout establish facility
    expire face finger touch flavor male play symmetry additive replica fleet former rational human structural
    compound comparable dash contribute suppose knowledge wireless internet curl recover handy attention allocation
    mock banner benchmark involve encounter realm accurate notify tricky insertion oracle offline behalf bunch
    inclusion mature rotate material shadow nickname company advance decrease manipulate approval anymore compose
    mess squeeze succeed recreate mandatory injection leak torch indirect somewhere heartbeat female story
    preference inequality survey caution empirical paste consult latency announce inject integrity lack preview flip
    ecosystem compliance transient peek discuss conform business principle brute quad desirable micro geometric
    inactive simulate sensible extent alarm mass universal timer shrink sticky simulation trick ground flash
    ambiguity tight membership severity game computer accomplish reproduce revert fashion existence extraction
    leverage recovery quantity stamp lifespan ensemble retention mutation allocate diameter bypass excess assessment
    passive grammar essential promote lifetime thought appearance vault intuitive allowance checkpoint attacker
    magnitude automation descent preferable broad resume vote chart technical colour wipe fish legal relate smart
    practical intro separation corner reliable circuit greedy trail subscribe chat unusual portable vast excel
    semantic spread trouble gram cubic digit dull complain retrieval drive velocity leap interrupt synthetic
    promotion pseudo elementary mistake successor wire county purge fiber mixture sake rationale shiny adjustment
    social arrive absence subscriber radio insecure diagram encourage obsolete capability accumulate council derive
    hood guidance opener alive initiate vulnerable wiki impulse extensive drift mutual diagnostic feasible recipient
    miss leftover frequent nominal attack observe personal life agree irregular icon invitation exhaust stationary
    navigation importance organize driven visual interfere scientific mimic hardware education tend momentum
    excellent blossom leader geography canary navigate bother angular successive farm stick volatile inform food
    grow believe mitigate classical modular slope descendant mate pond adopt forth violation proton ownership gather
    charge corrupt subtle comb pack alert trial hope capitalize timeline formal prototype insight eligible flex
    intend press spot suggestion honor forbidden purchase useless redundancy unequal concise detective literature
    notable refuse wake trap contour compressor promise medical eliminate surname beam inflation spend luck incur
    panel footprint submission hang turbine clamp daylight impose coffee brew regional skeleton fault destroy
    surround ridge scratch regime artifact sniff pinpoint advice decay acceptance neutral realize melt reboot scrape
    danger exhaustive stand land hyper disagree lateral doubt homepage bullet resistance fruit holder saga invisible
    study altogether predictive assemble blink income indication irrational nuisance advisor slack tendon temporal
    stroke quotation unstable favorite playback imagine philosophy concern irrelevant pong tolerant sole squash
    posterior citation technology valuable comm desktop controller prove occasional thumb staff ultimate registrar
    uneven opaque altitude knot exploit handful clarify artist peak incidence clash prioritize contrary instant
    awesome confuse audience stem stress fair upward energy nose collision dominant prone checklist tile reviewer
    motivation approve weather reversible reality genuine tear theorem isolate solo arrange delegation shorten buggy
    comprise loose commercial excessive snap love slight blow scroll originate picture alphabet sentiment salesman
    clarity mesh feat telephone badge unclear fuzzy foundation spark meat leopard attraction regard desire meantime
    needle confident dialog expense definite repetition simplistic provision bell motion resilient boost downward
    exterior
"""
"""Words of English prose about software, the most frequent first, that are in no list of `lexicon`; whoever draws one
leaves out those of the test split."""

PIECES = """
    ab able ac ach ack acke act actor ad add ag age ak al all ally alse am ame ameter ameters ample an and ang ange
    ango ans ant any ap app append ar ard are arg args argument arn arning array art ary as ase ask ass assert assi
    assistant ast at ata ate ated ath ation ations ative ator attr attribu au ault auto aws ax axis ay back base be
    ber ble block bo bool bu but by ca cal call can case cate ce ces cess ch che check ci ck cl class clu co code
    col column columns com comm command comp con cond config conne conte content cor core count cre cs csv ct ction
    ctor cur data date datetime de ded def default del dent dex df di dict dif ding dire dis do doc dtype du dule ec
    ect ed edit el eld elif else en end engine ent equ equal er error ers ery es est et ex example exce exp expected
    expr ext fa fe ff fi field fig file first fix flo float fo for form format frame fre from ft fun func function
    functions ge get gine give gor group gs ha hand has have he head ho ht htt ial ic id idx ies if ifi ig ight il
    ild im ime imp import in ind index ine ing init instance int inter ion ip ir is ise isinstance ist it ite iter
    ition its ity ive iz jango jo ke key kw kwargs la lab label late le lect led lement len level lf li lib lic like
    lin line list ll lo load lock log lot low ly ma main map mat match max mb mbol me ment meth method min ml mo
    model more mp mple mpy ms mult my na name names nc nce nd ne ner new no node not np ns nt num number ob obj
    object od of og ok ol old om on one only op oper option options or ord order ork orm ort orted os ot other out
    output over pand pandas par param params pare part path pd pe pec pected pen pend per pi ping pl pla place po
    pol pon port pos pr pre print pro ps pt ption put py pytest python qu que quest ra raise rame range rap raph ray
    re read red ree ref reg rel rent request res ression result return ri rite rix ro rom ror roup row rows rror rst
    run sc sche schema se sed see self ser sert ses set sh sha shape she shell sho should si sig sing sion size sk
    so sol sp spec sq sql ss st stan stance stant start stat state ste stem str string su sub sum sup sy sympy
    system ta table tain te ted teg temp ten ter tes test text th that the ther this thon ti time ting tm to tool tr
    trans tri tribu try tuple tur turn ty type ub ue ug ul uld ull ult um ument umn un und uni unt up uple ur urce
    ure us use used user using ust ut ute val valid value values var vari variable ve vel ver version vi vis we
    weight wh whe when where whi which wi will with wn wo work write ws xt yo you ype ze
"""
"""Letter groups of two and more, as byte-pair encoding finds them in prose and code."""
