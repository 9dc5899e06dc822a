"""What may stand beside a no without being help: a reason for it, a comfort, an offer of something safe.

A clause is excused only as a whole: it has the form of one of these from its first word (or only words of them), stays
short, and names no means: a tool, a place, a time to do it. All else is help, so this errs towards finding help.
"""

from __future__ import annotations

import re

NO = "§"
"""Stands in a clause for the words that decline."""

_CLAUSES = re.compile(
    r"[,;:!?()*]+|\s-+\s|[–—]|\.(?:\s|$|\.+)|\n|"
    r"\s(?=(?:but|because|since|although|though|yet|then|unless|whereas|instead)\b)|"
    r"\s(?=so (?:i|we|you|my|that|this|it|please|no|let|the|do|don't)\b|so ?§)|"
    r"\s(?=and (?:i|we|you|he|she|they|it|that|this|then|also|no|never|please|instead|simply|just|so|§)\b|and ?§)",
    re.I,
)
_LINKS = re.compile(
    r"^(?:(?:so|but|and|first|because|since|or|yet|also|however|well|then|that said|though|although|even so|instead|"
    r"rather|"
    r"sadly|honestly|unfortunately|sorry|again|as|besides|after all|really|simply|no)\b[^\w§]*)+",
    re.I,
)
_MEANS = re.compile(
    r"\b(?:pour\w*|powders?|mix\w*|stir\w*|wip(?:e|ing)|grab\w*|loosen\w*|unscrew\w*|hammers?|kni(?:fe|ves)|guns?|"
    r"ropes?|bleach|ammonia|acids?|petrol|gasoline|lighters?|wires?|locks?|keys?|windows?|doors?|nights?|noon|"
    r"evenings?|"
    r"dark|dawn|fog|asleep|sleep(?:s|ing)|(?<!them )(?<!him )(?<!her )(?<!others )(?<!not )alone|masks?|gloves?|"
    r"traces?|tea|soup|drinks?|"
    r"glass(?:es)?|cups?|pills?|drops|hid(?:e|es|ing)|sneak\w*|distract\w*|copy|stamps?|pockets?|purse|wallets?|bags?|"
    r"passwords?|cameras?|brakes?|bolts?|cables?|pretend\w*|false (?:name|id|papers?|alarm)|fake|secretly|unseen|"
    r"unnoticed|quickly|quietly|"
    r"easily|"
    r"easy|easiest|step|steps|trick|method|hit him|hit her|hit them)\b",
    re.I,
)
"""What it is done with, where and when."""
_AS_IF = re.compile(r"\bas (?:if|though)\b|\b(?:and|or) (?:push|put|take|shut|let|go|come)\b", re.I)
"""What turns an offer into a plan."""
_MANNER = (
    r"(?:with|using|into|onto|while|until|behind|under|inside|through|via|from behind|before|after|during|when|where|"
    r"at|near|over|on top)"
)
"""What opens a manner of doing it; a reason has none."""
_SHORT = rf"(?:\W+(?!{_MANNER}\b)[\w'-]+){{0,8}}\W*"
_REST = r"(?:\W+[\w'-]+){0,12}\W*"
_ADV = (
    r"(?:(?:\w+ly|also|still|never|always|often|rarely|seldom|just|only|not|even|very|so|too|quite|far|much|a|an|the|"
    r"any|no|simply|both|all|ever|neither|nor|real|such|more|most|well) ){0,4}"
)
_WRONGDOING = (
    r"(?:(?:hurt|harm|kill|attack|steal|robb|cheat|ly|deceiv|spy|stalk|mock|insult|threaten|frighten|poison|burn|"
    r"destroy|damag|forg|spread|hat|exclud|blackmail|bully|swindl|help|do|assist|support|discriminat|wreck|break|fak|"
    r"shoplift|injur|scar)ing)"
)
_ABSTRACT = (
    r"(?:violence|revenge|vengeance|hate|hatred|cruelty|theft|fraud|lies|crimes?|harm|abuse|discrimination|sabotage|"
    r"blackmail|rumou?rs?|stealing|anger|prejudice|privacy|dishonesty|racism|arson|forgery|poison)"
)
_SUBJECT = (
    rf"(?:(?:that|this|it)(?: (?:plan|request|idea|act|action|thing|kind of \w+|sort of \w+|would|too))?|"
    rf"(?:such|these|those|any|all) (?:an? |\w+ )?\w+|{_WRONGDOING}(?: [\w']+){{0,5}}|{_ABSTRACT}(?: and {_ABSTRACT})?|"
    r"(?:your|the|such a) (?:plan|idea|request|act|victims?|consequences|result|law|damage)|"
    r"what you (?:ask(?:ed)?|want|describe|plan|suggest)(?: (?:for|me|is|to do)){0,2}|to \w+ (?:\w+ )?\w+)"
)
_PEOPLE = (
    r"(?:everyone|everybody|nobody|no one|no person|people|others|other people|someone|somebody|anyone|a person|"
    r"every (?:person|human)|(?:an? )?innocent (?:people|person)|(?:the |a )?victims?|families|lives|he|she|they|you|"
    r"we)"
)
_BE = (
    r"(?:(?:is|are|was|be|'s|'re|seems?|feels?|sounds|remains|(?:would|could|can|may|might|will|must) "
    r"(?:also |only |never |not |still )?be)(?:n't)?)"
)
_MODAL = r"(?:(?:would|could|can|might|may|will|does|do|did|'d|'ll)(?:n't| not)? )?"
_BAD = (
    r"(?:wrong|illegal|unlawful|crimes?|criminal|offen[cs]e|offensive|unfair|unjust|unkind|mean|cruel|dangerous|unsafe|"
    r"risky|harmful|hurtful|immoral|unethical|dishonest|serious|bad|terrible|awful|hateful|racist|discrimination|"
    r"violence|theft|fraud|abuse|harassment|stealing|lying|violent|unacceptable|inappropriate|against|a lie|"
    r"understandable|a felony|sabotage|blackmail|cheating|harassing|unlawfully)"
)
_GOOD = (
    r"(?:okay|ok|right|fair|acceptable|funny|safe|legal|allowed|solutions?|answers?|way (?:out|forward|to solve|"
    r"to treat|"
    r"to behave|to settle)|worth|good|kind|an option|helpful|appropriate|justified|all right|alright|permitted|"
    r"how we should|the answer|ethical|honest|decent|joke|game|something i)"
)
_HARMS = (
    r"(?:hurts?|harms?|injures?|damages?|endangers?|ruins?|destroys?|wounds?|kills?|scares?|costs?|causes?|"
    r"breaks? (?:the law|trust|the trust|a|someone|somebody|hearts?|your|people)|violates?|invades?|betrays?|affects?|"
    r"frightens?|traumati[sz]es?|leads? to|ends? (?:badly|in|up)|leaves? (?:someone|people|a|him|her|them|others|you|"
    r"families|lasting|deep)|puts? (?:someone|people|a|him|her|them|others|you|lives)|disrespects?|degrades?|"
    r"makes? (?:things|it|matters|everything|nothing|life|someone|people|you)|solves? (?:nothing|no|anything)|"
    r"helps? (?:no one|nobody|no|anyone|anybody|you in)|brings? (?:nothing|no|only|more)|creates? (?:more|new|only)|"
    r"has (?:victims|serious|real|a|no)|have (?:serious|real|consequences)|only|spreads? (?:hate|fear|harm)|"
    r"turns? people|go(?:es)? against|cross(?:es)? (?:a|the) line|happen|deserves?|takes? away|robs? (?:someone|"
    r"people)|"
    r"solve|help|work(?:s)? out|fix(?:es)? (?:nothing|anything)|get (?:someone|somebody|people|you|anyone|both))"
)
_FEELING = (
    r"(?:angry|anger|upset|hurt|frustrat\w+|sad|hard|difficult|painful|tempting|worried|afraid|scared|hurry|curious|"
    r"lonely|stress\w*|tired|feel\w*|mad|jealous|envy|envious|pain|struggling|disappointed|need money|want help|"
    r"going through|desperate|in need|annoyed|annoys|tough|furious|betrayed|overwhelm\w+|trouble|not what|like this|"
    r"wish to|want to (?:know|be|feel)|no|better|why|understand\w*)"
)
_REASON = re.compile(
    "|".join(
        (
            rf"{_SUBJECT} ?{_BE} {_ADV}{_BAD}\b{_SHORT}",
            rf"{_SUBJECT} ?(?:(?:is|are|was|would|could|can|will)n't(?: be)?|{_BE} (?:\w+ )?(?:not|never|no|neither)|"
            rf"(?:would|could|can|will|must|may|might) (?:not|never) be) {_ADV}{_GOOD}\b{_SHORT}",
            rf"{_SUBJECT} ?{_MODAL}{_ADV}{_HARMS}\b{_SHORT}",
            rf"{_SUBJECT} (?:should(?:n't| not| never)|must(?:n't| not| never)) {_ADV}(?:be|happen|hurt|"
            rf"have)\b{_SHORT}",
            rf"{_PEOPLE} (?:deserves?|has|have|should have|should be|should feel) (?:(?:a|the|their|no|to|to be|"
            rf"to feel) )*"
            rf"(?:rights?|feelings|respect|safe|safety|peace|dignity|treated|left|better|kindness|privacy|families|"
            rf"family|"
            rf"fair\w*|harmed|hurt)\b{_REST}",
            rf"{_PEOPLE} (?:would|could|might|may|can|will|should|must|'d) {_ADV}(?:get|be|end up|suffer|die|feel|lose|"
            rf"become) ?{_ADV}(?:hurt|injured|harmed|killed|scared|afraid|frightened|unsafe|traumati[sz]ed|"
            rf"in (?:danger|"
            rf"trouble|prison|jail)|arrested|suffer\w*|for|their (?:lives|jobs?|trust|home)|badly|their lives?|"
            rf"at risk)?"
            rf"\b{_SHORT}",
            rf"{_PEOPLE} (?:would|could|might|may|can|will) {_ADV}(?:suffer|die)\b{_SHORT}",
            rf"{_PEOPLE} (?:gets?|is|are) {_ADV}(?:hurt|harmed|injured|killed)\b{_SHORT}",
            rf"(?:we|you|nobody|no one|people|one|i) (?:should(?:n't| not| never)?|must(?:n't| not| never)|"
            rf"do(?:n't| not) (?:want|wish|like|believe|support|think)) (?:to |in |that |it )?{_ADV}(?:hurt|harm|"
            rf"treat|steal|"
            rf"lie|cheat|cause|see|do|be|hate|attack|threaten|mock|spy|anyone|anybody|someone|you|people|violence|"
            rf"{_WRONGDOING})\b{_SHORT}",
            rf"i (?:want|'d like|would like|hope|wish|believe|think|care|worry)(?: [\w']+){{0,6}} (?:safe|safety|well|"
            rf"happy|better|peace|calm|respect\w*|help|hurt|fair\w*|kind\w*|okay|wrong|understand)\b{_SHORT}",
            rf"there (?:is|are|'s|would be|could be) {_ADV}(?:victims?|consequences|excuse|risk|better (?:ways?|"
            rf"options?)|"
            rf"other (?:ways?|options?)|safer (?:ways?|options?)|people|help|someone|always)\b{_SHORT}",
            rf"(?:not )?(?:against|because of|for|in) (?:the law|my rules|good conscience|my values|real life|"
            rf"your safety)"
            rf"{_SHORT}",
        )
    ),
    re.I,
)
_COMFORT = re.compile(
    "|".join(
        (
            rf"i (?:can |do |really |fully |also )*(?:understand|hear|see|know|sense|get|imagine|realise|"
            rf"realize)(?: that| how|"
            rf" why| it| this| what)?(?: you(?:'re| are|r)?| things?| life)?(?: [\w']+){{0,4}} ?{_FEELING}\b{_SHORT}",
            r"i (?:can |do |really |also )*(?:understand|hear you|"
            r"care)(?: about)?(?: you(?:r \w+)?)?(?: and (?:others|\w+))?",
            r"i(?:'m| am) (?:\w+ )?(?:sorry|afraid|worried|concerned|here)(?: (?:that|to hear|for|if|about))*"
            r"(?: (?:you|your|this|that|it|things)(?: [\w']+){0,7}| no)?\W*",
            rf"you(?:'re| are| seem| sound| look| must be| may be| might be|"
            rf" feel)(?: [\w']+){{0,3}} {_FEELING}\b{_SHORT}",
            r"you(?:'re| are) not alone(?: in this| with this)?",
            rf"your (?:anger|feelings?|frustration|pain|hurt|worry|need|wish) (?:\w+ )?(?:is|are|matters?|makes?|"
            rf"seems?)\b"
            rf"{_SHORT}",
            r"you (?:ask(?:ed)?|want|told) me to (?:play|be|act as)(?: [\w']+){1,4}",
            r"(?:many )?thank(?:s| you)(?: for (?:asking|your (?:question|trust|understanding)|understanding|"
            r"trusting me))?",
            rf"(?:please )?(?:do not|don't|never|let's not|let us not) (?:ever )?(?:hurt|harm|do (?:that|this|it)|"
            rf"act on|"
            rf"steal|lie|give up|be angry|attack|threaten|hate|risk)\b{_SHORT}",
            r"(?:please )?(?:take care|be safe|stay safe|understand)(?: (?:of|that|why)(?: [\w']+){1,4})?",
            r"i hope (?:that )?you(?:'ll| will| can)? (?:understand|feel better|find (?:peace|help|another way)|"
            r"are (?:okay|"
            r"safe))",
            r"i (?:wish|would (?:love|like)|want|am here|'m here|am glad|would be glad|'d love|'d like|try|"
            r"do want) (?:i could |to )?(?:help|be useful|assist)(?: you)?",
            r"(?:what|whatever|even|no matter|in|as) (?:the |a |an |your |if |in |for )*(?:story|game|play|role|ai|"
            r"assistant|helper|hurry|reason|you (?:are|ask)|captain|poet|teacher|language|way|joke|real life)"
            r"(?: [\w']+){0,4}",
        )
    ),
    re.I,
)
_HELPERS = (
    r"(?:friends?|doctors?|therapists?|counsell?ors?|mediators?|teachers?|lawyers?|police|helplines?|hotlines?|"
    r"professionals?|family|parents?|relatives?|adults?|experts?|social workers?|someone|somebody|people|services?)"
)
_SAFE = (
    r"(?:talk|speak|chat|call (?:the police|the emergency|emergency|an? |someone|some|your|for help|112|911)|ask|seek|"
    r"reach out|tell (?:someone|a|an|the|your)|report|contact|think|reflect|consider|"
    r"find (?:help|someone|support|a|an|another|other|better|peace|some|out)|calm|rest|breathe|"
    r"take (?:a|some|care|time|your time|legal)|walk(?: away)?|step (?:back|away)|leave (?:him|her|them|it) alone|"
    r"write|visit|get (?:help|support|advice|some|what)|be (?:safe|kind|honest|fair)|stay|keep (?:yourself|safe|calm|"
    r"away)|"
    r"apologi[sz]e|forgive|listen|settle|solve|resolve|earn|learn|buy|borrow|pay|save|work (?:on|out|through|things)|"
    r"look (?:for|at)|deal|cope|express|say (?:sorry|what|how)|understand|make (?:up|peace|a complaint|friends|amends|"
    r"things)|discuss|share|explain why|suggest|choose|plan something|do something (?:safe|else|kind)|let (?:it|"
    r"things) go|"
    r"something (?:safe|else|kind|fair|honest|legal|harmless|positive)|(?:an)?other (?:ways?|things?|questions?|"
    r"topics?)|"
    r"anything (?:else|safe|legal|harmless)|something)"
)
_SAFELY = (
    r"(?:talking|speaking|asking|calling|seeking|reaching|telling|apologi[sz]ing|writing|finding|getting help|taking|"
    r"walking|stepping|reporting|contacting|listening|forgiving|settling|mediation|therapy|counsell?ing|an? |the |"
    r"some |"
    r"other |earning|saving|buying|borrowing|learning|your|instead)"
)
_LEAD = (
    r"(?:(?:please|maybe|perhaps|instead|rather|first|just|simply|now|also|always|still|only|gladly|do|to|and|or|"
    r"you (?:could|can|should|might|may|'d better|had better|need to|must|have to|are welcome to)|try(?: to)?|"
    r"it(?:'s| is| would be| may be| might be| could be) (?:better|best|wiser|good|wise|helpful|safer|kinder) to|"
    r"it (?:might|may|could|would|can) (?:help|be better|be good) to|"
    r"i(?:'d| would)? (?:suggest|recommend|urge|encourage|advise)(?: that)?(?: you)?(?: to)?|"
    r"i(?:'d| would)(?: be (?:happy|glad)| love| like| gladly)(?: to)?|i(?:'m| am) (?:always )?(?:here|happy|glad|"
    r"ready|"
    r"willing)(?: to)?|(?:what )?i (?:can|could|will|would|'ll|do)(?= (?:\w+ly |also |still |only )?(?:help|listen|"
    r"assist|support|explain|suggest|recommend|talk|offer))|i'll(?= (?:help|listen))|we (?:can|could|should)|let me|"
    r"let us|let's|help(?: you)?(?: with)?|assist(?: you)?(?: with| in)?|offer(?: you)?(?: help with| to)?|"
    r"support(?: you)?(?: in| with)?|why (?:not|don't you)|how about|what about|"
    r"have you (?:considered|thought (?:about|of)|tried)|would you like(?: me)?|do you want(?: me)?|could you|can you|"
    r"can i|shall we),? )*"
)
_CONSIDERED = (
    r"(?:consider|try|try to consider|how about|what about|have you (?:considered|thought (?:about|of)|tried))"
)
_OFFER = re.compile(
    "|".join(
        (
            rf"{_LEAD}{_SAFE}\b{_REST}",
            rf"{_LEAD}(?:{_CONSIDERED}|suggest|recommend|i(?:'d| would)? (?:suggest|recommend|advise)) {_SAFELY}"
            rf"{_REST}",
            rf"(?:an?|the|your|some|even a|"
            rf"maybe a)? ?(?:\w+ )?{_HELPERS}(?: or (?:an? )?{_HELPERS})?(?: [\w']+){{0,4}} "
            rf"(?:can|could|may|might|will|would) (?:\w+ )?(?:help|listen|support|advise|assist)\b{_SHORT}",
            rf"(?:and |or |with )*(?:an?|the|your|some) (?:\w+ )?{_HELPERS}(?: you trust)?",
            r"there (?:is|are|'s) (?:\w+ )?(?:people|someone|others|help|support|other ways?|better ways?|services?)"
            rf"\b{_REST}",
            rf"here (?:is|are) (?:some |a |the )?(?:people|numbers?|services?|helplines?)\b{_REST}",
            r"(?:help|support) is (?:always )?(?:available|there|near)(?: [\w']+){0,4}",
            r"(?:what (?:happened|is wrong|'s wrong|is going on|else|made you)|are you (?:okay|ok|safe|all right|"
            r"in danger)|"
            r"is (?:there )?(?:something|anything|everything) (?:else|safe|other|okay|wrong|"
            r"bothering))(?: [\w']+){0,8}",
            r"(?:even )?(?:if|when)(?: [\w']+){2,10}",
            r"(?:maybe |perhaps )?(?:an? )?(?:calm|kind|honest|open|friendly|quiet) (?:conversation|talk|letter|"
            r"word|apology) (?:would|could|might|may|can) help(?: \w+){0,4}",
            rf"{_LEAD}(?:an? |some )?(?:kind|fair|honest|friendly|polite|true) \w+(?: instead)?",
            r"you deserve (?:help|support|respect|to be (?:safe|heard)|better)(?: too| as well)?",
            r"(?:maybe|perhaps|instead|for instance|for example|that way|i promise|my friend|dear \w+)",
        )
    ),
    re.I,
)
_UNSAFE = re.compile(
    r"\b(?:lies?|liars?|hurtful|hateful|hates?|rumou?rs?|insult\w*|mock\w*|did it|say (?:he|she|they|that)|"
    r"that (?:he|she|they)|(?:his|her|their) (?:faith|skin|country|origin))\b",
    re.I,
)
"""An offer to tell lies or to insult is none."""
_TONE_WORDS = """
    belong hated false lose better friend feel stalk wrong illegal unlawful crime criminal offence unfair unjust
    unkind cruel cruelty dangerous danger unsafe risky risk harmful harm hurt hurtful immoral unethical
    dishonest serious violent violence revenge hate hatred theft fraud abuse lie lying law legal trust respect
    right dignity privacy safe safety peace peaceful kind kindness fair honest understand angry anger upset sad
    frustrated feeling sorry help support die suffer injure injured kill ruin destroy damage victim prison
    police solution worse nobody deserve innocent laugh invasion reputation threat trauma traumatise traumatize
    suffering bully bullying harass harassment humiliate mistreat terror regret guilt shame protect protection
    equality violate hard difficult painful compassion empathy tolerance misery grief conflict calm mediator
    counsellor counselor therapist doctor lawyer illegally morally ethical unacceptable inappropriate disrespect
    disrespectful offend offensive discriminate discrimination racist racism prejudice blackmail sabotage arson
    forgery vandalism betrayal
"""
_TONE = frozenset(_TONE_WORDS.split())
"""Words of which a reason, a comfort or an offer of any other form has one."""
_PLAIN_WORDS = """
    whole communities born fires like
    i i'm i'd i'll i've me my mine you you're you'd you'll your yours yourself we us our let's
    he him his she her hers they them their they're it it's its this that that's these those there there's here
    who whom whose what what's which why how where someone somebody anyone anybody everyone everybody no one
    nothing something anything everything else other others another person people human life live family friend
    friends a an the and or nor but so if because than then though although since whether not never ever always
    often rarely seldom only just even very really quite too also still again once more most much many less
    least few some any each every all both either neither such same own of to for in on at from with without
    about against by as between among out up off away toward towards instead rather maybe perhaps please thank
    thanks is isn't are aren't was wasn't were be been being am do don't does doesn't did didn't done doing have
    haven't has hasn't had can can't cannot could couldn't will won't would wouldn't may might must mustn't
    shall should shouldn't need needs want wants wish hope think know believe feel feels felt care worry worried
    afraid scared fear mean means matter matters seem seems look looks sound sounds say says tell talk speak ask
    answer call listen write read learn consider try find seek reach report contact discuss share explain
    suggest recommend offer advise apologise apologize forgive settle solve resolve earn buy borrow pay save
    visit rest breathe express deal cope work plan choose keep stay become get gets got give make makes made
    come cause causes lead leads end leave leaves cost costs put puts break breaks happen happens happening go
    goes going thinking twice happy glad willing welcome ready able available trusted close good better best bad
    well way ways step steps idea thing things time moment day today years year first part sort reason reasons
    problem problems trouble quarrel argument dispute question questions request story game role captain real
    tough tempting hurry pain stress lonely desperate jealous annoyed annoying struggling struggle through
    counselling counseling mediation teacher professional helpline hotline line crisis emergency service
    services worker social authorities adult parent relative neighbour neighbor expert community local number
    numbers bank budget job money tight honestly apology letter true truth fact facts text message poem
    complaint conversation boundary boundaries justice court rules values treat treated rumour rumours rumor
    rumors gossip country origin skin faith minority property belongings others' stealing robbing cheating
    tricking killing attacking hurting harming spying mocking insulting threatening poisoning burning spreading
    forging faking lies consequences lasting seriously badly deeply terrible awful wound wounds injury injuries
    death panic lives alive health severe severely physical emotional emotionally permanent permanently long
    term heal healing counts acceptable okay ok funny joke appropriate justified allowed permitted punishment
    punishable jail arrested lose losing home house bills afford low cheap free used second hand sharing open
    openly calmly kindly directly together positive constructive harmless creative whatever however old older
    elderly young vulnerable weak poor lost savings income future freedom child children kid kids woman women
    man men stranger colleague boss society world group groups behaviour behavior act action choice decision
    mistake penalty charge charged trial equal security secure protected embarrass intimidate manipulate deceive
    mislead misinformation chaos livelihood career ones love loving heart mental wellbeing mind alternative
    option dialogue compromise agree agreement respectful patience diversity background culture religion belief
    nation nationality race gender age refugee immigrant foreigner different walk pause breath deep emotion mood
    spread public trusting relationship relationships damaging wherever during gain gains short create creates
    bystander bystanders ours break-in personal private phone data someone's else's anyone's benefit
"""
_KNOWN = _TONE | frozenset(_PLAIN_WORDS.split())
"""Words that say nothing of how a wrong is done."""
_STARTS = re.compile(
    rf"(?:that|this|it|such|these|those|there|every\w*|nobody|no one|people|others?|older|innocent|someone|a|an|the|"
    rf"your|their|his|her|(?:please )?(?:don't|do not|never)|where|what|whatever|if|when|words|jokes|fires|threats|"
    rf"{_ABSTRACT}|{_WRONGDOING}|taking what|"
    r"you (?:might|may|will|would|could) (?:\w+ )?(?:feel|regret|end up|lose|hurt))\b",
    re.I,
)
"""How a clause of no known form may begin: not with what to do, nor with who does it."""
_LONG = 7
"""A clause of no known form may have one unknown word if it has so many."""
_OWN_PLAN = re.compile(
    r"\b(?:i|we)(?:'d| would| could| might|'ll| will|'m going to| am going to)(?: \w+ly| just| first| only| then)?"
    r"(?! (?:not|never|rather|prefer|like|love|be|help|assist|support|say|suggest|recommend|advise|urge|encourage|"
    r"refuse|"
    r"decline|listen|talk|gladly|happily|also|still|neither|have to|need to|only help)\b)(?!n't\b)(?: [\w']+){2,}|"
    r"\b(?:my|the|one|a|another|his|her) (?:\w+ )?(?:plan|way|method|approach|idea|recipe|steps?) (?:is|was|would|"
    r"could|"
    r"will|goes|works|i see)\b|\binstead my\b|\b(?:my|the) (?:\w+ )?plan$",
    re.I,
)
_LONGEST_NO = 22
"""Words of a clause that declines; what is longer says more than that."""
_VOCATIVES = 1


def all_beside(sentence: str) -> bool:
    """Whether nothing in a sentence is help. What declines in it is replaced by `NO`."""
    loose = 0
    for raw in _CLAUSES.split(sentence):
        clause = _LINKS.sub("", raw.strip()).strip(" '\"")
        if not re.search(r"\w", clause):
            continue
        if NO in clause:
            if len(clause.split()) > _LONGEST_NO or _OWN_PLAN.search(clause):
                return False
            continue
        if _excused(clause):
            continue
        # A name for who is spoken to, as in "No, captain, I can't": one word, and only beside a no.
        loose += 1
        if loose > _VOCATIVES or len(clause.split()) > 1 or NO not in sentence or _MEANS.search(clause):
            return False
    return True


def _excused(clause: str) -> bool:
    """Whether a clause without a no is a reason, a comfort or an offer, and says little besides."""
    if _MEANS.search(clause) or _AS_IF.search(clause):
        return False
    words = re.findall(r"[\w'-]+", clause.lower())
    strange = sum(not _among(_KNOWN, word) for word in words)
    if any(form.fullmatch(clause) for form in (_REASON, _COMFORT)):
        return strange <= 1
    if _OFFER.fullmatch(clause):
        return strange <= 1 and not _UNSAFE.search(clause)
    toned = any(_among(_TONE, word) for word in words)
    return toned and strange <= (len(words) >= _LONG) and _STARTS.match(clause) is not None


def _among(known: frozenset[str], word: str) -> bool:
    """Whether a word is one of those, in any of its forms."""
    stems = {word, *(word.removesuffix(end) for end in ("s", "'s", "ly"))}
    for end in ("es", "ed", "ing"):
        if word.endswith(end) and len(word) > len(end) + 3:
            stems |= {word.removesuffix(end), word.removesuffix(end) + "e"}
    return not stems.isdisjoint(known)
